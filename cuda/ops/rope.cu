// rope: rotate-half rotary embedding (2104.09864) of every head.
#include "ops/heads.cuh"

namespace rvllm::cuda {
namespace {

template <typename T, int N>
__global__ void rope_kernel(Rows<const T> x, Rows<const float> table, Rows<T> y, int n_heads,
                            HeadShape shape) {
    pdl_launch_dependents();
    pdl_wait();
    const int head = head_of_thread();
    if (head >= n_heads) return;
    const int64_t at = (int64_t)head * shape.head_dim;
    turn_head<T, N>(x.row(blockIdx.x) + at, nullptr, table.row(blockIdx.x), y.row(blockIdx.x) + at, shape);
}

void run(const OpCall& call, const RunContext& ctx) {
    const Operand &x = call.in[0], &table = call.in[1], &y = call.out[0];
    const int n_heads = y.cols / call.attrs.head_dim;
    with_type(y.dtype, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const bool wide = heads_aligned(call.attrs.head_dim, call.attrs.rotary_dim, x, table, y);
        launch(call, ctx, wide ? rope_kernel<T, kHeadVector> : rope_kernel<T, 1>,
               head_grid(rows_of(y, *ctx.step), n_heads), kHeadThreads, 0, rows<const T>(x),
               rows<const float>(table), rows<T>(y), n_heads,
               HeadShape{call.attrs.head_dim, call.attrs.rotary_dim, 0.0f});
    });
}

}  // namespace

Kernel find_rope(const KernelKey& key) {
    const Attrs& a = key.attrs;
    const bool ok = same_half(key) && a.head_dim > 0 && a.rotary_dim % 2 == 0 && a.rotary_dim <= a.head_dim;
    return ok ? Kernel{run, "rope"} : Kernel{};
}

}  // namespace rvllm::cuda
