// head_norm: RMSNorm of each head of head_dim columns on its own.
#include "ops/heads.cuh"

namespace rvllm::cuda {
namespace {

template <typename T, int N>
__global__ void head_norm_kernel(Rows<const T> x, const float* __restrict__ weight, Rows<T> y, int n_heads,
                                 HeadShape shape) {
    pdl_launch_dependents();
    pdl_wait();
    const int head = head_of_thread();
    if (head >= n_heads) return;
    const int64_t at = (int64_t)head * shape.head_dim;
    turn_head<T, N>(x.row(blockIdx.x) + at, weight, nullptr, y.row(blockIdx.x) + at, shape);
}

void run(const OpCall& call, const RunContext& ctx) {
    const Operand &x = call.in[0], &y = call.out[0];
    const int n_heads = y.cols / call.attrs.head_dim;
    with_type(y.dtype, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const bool wide = heads_aligned(call.attrs.head_dim, 0, x, y);
        launch(call, ctx, wide ? head_norm_kernel<T, kHeadVector> : head_norm_kernel<T, 1>,
               head_grid(rows_of(y, *ctx.step), n_heads), kHeadThreads, 0, rows<const T>(x),
               static_cast<const float*>(call.weight[0]->data), rows<T>(y), n_heads,
               HeadShape{call.attrs.head_dim, 0, call.attrs.eps});
    });
}

}  // namespace

Kernel find_head_norm(const KernelKey& key) {
    return same_half(key) && key.attrs.head_dim > 0 ? Kernel{run, "head_norm"} : Kernel{};
}

}  // namespace rvllm::cuda
