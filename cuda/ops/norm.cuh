// RMSNorm of whole rows (1910.07467), with or without the residual addition before it: a block per row,
// two passes over it; the second reads what the first left in the cache.
#pragma once
#include "ops/launch.cuh"

namespace rvllm::cuda {

constexpr int kMaxNormThreads = 1024;

// The same for every thread; blockDim.x is a multiple of 32.
__device__ __forceinline__ float block_sum(float x) {
    __shared__ float partial[32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    x = warp_sum(x);
    if (lane == 0) partial[warp] = x;
    __syncthreads();
    return warp_sum(lane < blockDim.x / 32 ? partial[lane] : 0.0f);
}

// y = rms_norm(x) * weight, or with Residual: sum = x + residual (rounded), y = rms_norm(sum) * weight.
// `sum` may be `residual`.
template <typename T, int N, bool Residual>
__global__ void norm_kernel(Rows<const T> x, Rows<const T> residual, const float* __restrict__ weight,
                            Rows<T> y, Rows<T> sum, int cols, float eps) {
    pdl_launch_dependents();
    pdl_wait();
    const T* from = x.row(blockIdx.x);
    float squares = 0;
    for (int c = threadIdx.x * N; c < cols; c += blockDim.x * N) {
        Vec<T, N> v = load_vec<T, N>(from + c);
        if constexpr (Residual) {
            const Vec<T, N> r = load_vec<T, N>(residual.row(blockIdx.x) + c);
#pragma unroll
            for (int i = 0; i < N; ++i) v.v[i] = from_float<T>(to_float(v.v[i]) + to_float(r.v[i]));
            store_vec<T, N>(sum.row(blockIdx.x) + c, v);
        }
#pragma unroll
        for (int i = 0; i < N; ++i) squares += to_float(v.v[i]) * to_float(v.v[i]);
    }
    if constexpr (Residual) from = sum.row(blockIdx.x);
    const float scale = 1.0f / sqrtf(block_sum(squares) / cols + eps);
    for (int c = threadIdx.x * N; c < cols; c += blockDim.x * N) {
        const Vec<T, N> v = load_vec<T, N>(from + c);
        const Vec<float, N> w = load_vec<float, N>(weight + c);
        Vec<T, N> out;
#pragma unroll
        for (int i = 0; i < N; ++i) out.v[i] = from_float<T>(to_float(v.v[i]) * scale * w.v[i]);
        store_vec<T, N>(y.row(blockIdx.x) + c, out);
    }
}

template <bool Residual>
void run_norm(const OpCall& call, const RunContext& ctx) {
    const Operand &x = call.in[0], &residual = Residual ? call.in[1] : x;
    const Operand &y = call.out[0], &sum = Residual ? call.out[1] : y;
    with_type(y.dtype, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const bool wide = aligned(8, x, residual, y, sum);
        const int pieces = wide ? y.cols / 8 : y.cols;
        const int threads = pieces >= kMaxNormThreads ? kMaxNormThreads : (pieces + 31) / 32 * 32;
        launch(call, ctx, wide ? norm_kernel<T, 8, Residual> : norm_kernel<T, 1, Residual>,
               dim3(rows_of(y, *ctx.step)), threads, 0, rows<const T>(x), rows<const T>(residual),
               static_cast<const float*>(call.weight[0]->data), rows<T>(y), rows<T>(sum), y.cols,
               call.attrs.eps);
    });
}

}  // namespace rvllm::cuda
