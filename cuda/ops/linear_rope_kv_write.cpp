// linear_rope_kv_write: heads are turned and written where the product ends, or by a kernel after it, as the
// choice of the product's kernel allows.
#include "composition.h"
#include "kernels.h"
#include "ops/linear.h"

namespace rvllm::cuda {
namespace {

void run(const OpCall& call, const RunContext& ctx) {
    const KvCacheView& kv = ctx.kv[call.attrs.group];
    const Operand &table = call.in[1], &slots = call.in[2];
    LinearArgs args = linear_args(call, ctx);
    if (args.m == 0) return;
    const LinearDesc desc = linear_desc(args, call, ctx);
    if (call.attrs.rotary_dim != call.attrs.head_dim || !can_rope(desc, call.attrs.head_dim)) {
        const LinearThenRope parts = composition(call);
        run_linear(parts.linear, ctx);
        run_rope_kv_write(parts.rope_kv_write, ctx);
        return;
    }
    const int64_t block = (int64_t)kv.n_kv_heads * kv.block_size * kv.head_dim,
                  layer_bytes = call.attrs.layer * kv.n_blocks * block * dtype_bytes(call.out[0].dtype);
    args.act = Act::rope;
    args.rope = {static_cast<const float*>(table.data),
                 static_cast<const int32_t*>(slots.data),
                 static_cast<char*>(kv.k) + layer_bytes,
                 static_cast<char*>(kv.v) + layer_bytes,
                 table.row_stride,
                 block,
                 kv.block_size,
                 kv.head_dim,
                 call.out[0].cols / kv.head_dim,
                 kv.n_kv_heads};
    run_linear(desc, args, call, ctx);
}

}  // namespace

Kernel find_linear_rope_kv_write(const KernelKey& key) {
    const bool ok = find_linear(key).fn && find_rope_kv_write(key).fn;
    return ok ? Kernel{run, "linear_rope_kv_write"} : Kernel{};
}

}  // namespace rvllm::cuda
