// linear_rope_kv_write: the product into its second output, then the heads out of that.
#include "composition.h"
#include "kernels.h"

namespace rvllm {
namespace {

void run(const OpCall& call, const RunContext& ctx) {
    const LinearThenRope parts = composition(call);
    run_linear(parts.linear, ctx);
    run_rope_kv_write(parts.rope_kv_write, ctx);
}

}  // namespace

Kernel cpu_find_linear_rope_kv_write(const KernelKey& key) {
    const Kernel linear = cpu_find_linear(key);
    return linear.fn && cpu_find_rope_kv_write(key).fn ? Kernel{run, linear.name} : Kernel{};
}

}  // namespace rvllm
