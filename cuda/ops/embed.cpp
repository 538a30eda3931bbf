// embed: rows of the table out of the layout that a tied LM head shares (gemm/embed.cu).
#include "context.h"
#include "gemm/pack.h"
#include "kernels.h"

namespace rvllm::cuda {
namespace {

void run(const OpCall& call, const RunContext& ctx) {
    Context& c = context_of(ctx);
    const Weight& w = *call.weight[0];
    const Operand& y = call.out[0];
    const PackedWeight table = {static_cast<uint8_t*>(w.data), w.n, w.k, w.dtype, w.order, c.layout()};
    note_error(c, call,
               embed_packed(table, static_cast<const int32_t*>(call.in[0].data), rows_of(y, *ctx.step),
                            y.data, y.row_stride, y.dtype, c.stream, c.pdl));
}

}  // namespace

Kernel find_embed(const KernelKey& key) {
    const bool ok = key.in == DType::i32 && is_half(key.weight) && key.weight == key.out;
    return ok ? Kernel{run, "embed"} : Kernel{};
}

}  // namespace rvllm::cuda
