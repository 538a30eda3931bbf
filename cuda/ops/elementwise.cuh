// Element-wise ops of one or two matrices: float32 inside, one rounding at the end.
#pragma once
#include "ops/launch.cuh"

namespace rvllm::cuda {

constexpr int kElementThreads = 256;

// Grid: rows, then runs of kElementThreads * N columns. y may be a or b.
template <typename F, typename T, int N>
__global__ void elementwise_kernel(Rows<const T> a, Rows<const T> b, Rows<T> y, int cols) {
    pdl_launch_dependents();
    pdl_wait();
    const int c = (blockIdx.y * kElementThreads + threadIdx.x) * N;
    if (c >= cols) return;
    const Vec<T, N> u = load_vec<T, N>(a.row(blockIdx.x) + c);
    const Vec<T, N> v = load_vec<T, N>(b.row(blockIdx.x) + c);
    Vec<T, N> out;
#pragma unroll
    for (int i = 0; i < N; ++i) out.v[i] = from_float<T>(F::apply(to_float(u.v[i]), to_float(v.v[i])));
    store_vec<T, N>(y.row(blockIdx.x) + c, out);
}

template <typename F>
void run_elementwise(const OpCall& call, const RunContext& ctx) {
    const Operand &a = call.in[0], &b = call.in[1].data ? call.in[1] : call.in[0], &y = call.out[0];
    with_type(y.dtype, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const bool wide = aligned(8, a, b, y);
        const int per_block = kElementThreads * (wide ? 8 : 1);
        const dim3 grid(rows_of(y, *ctx.step), (y.cols + per_block - 1) / per_block);
        launch(call, ctx, wide ? elementwise_kernel<F, T, 8> : elementwise_kernel<F, T, 1>, grid,
               kElementThreads, 0, rows<const T>(a), rows<const T>(b), rows<T>(y), y.cols);
    });
}

}  // namespace rvllm::cuda
