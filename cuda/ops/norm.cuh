// RMSNorm of whole rows (1910.07467), with or without the residual addition before it: a block per row. The
// first pieces of each thread stay in registers, later ones are read again; weights are read before the row
// is there.
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
    constexpr int kHeld = 2;
    Vec<T, N> held[kHeld];
    Vec<float, N> weights[kHeld];
    const int step = blockDim.x * N, first = threadIdx.x * N;
    pdl_launch_dependents();
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
        if (first + i * step < cols) weights[i] = load_vec<float, N>(weight + first + i * step);
    pdl_wait();
    const auto piece = [&](int c) {
        Vec<T, N> v = load_vec<T, N>(x.row(blockIdx.x) + c);
        if constexpr (Residual) {
            const Vec<T, N> r = load_vec<T, N>(residual.row(blockIdx.x) + c);
#pragma unroll
            for (int j = 0; j < N; ++j) v.v[j] = from_float<T>(to_float(v.v[j]) + to_float(r.v[j]));
            store_vec<T, N>(sum.row(blockIdx.x) + c, v);
        }
        return v;
    };
    float squares = 0;
    const auto add = [&](const Vec<T, N>& v) {
#pragma unroll
        for (int j = 0; j < N; ++j) squares += to_float(v.v[j]) * to_float(v.v[j]);
    };
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
        if (first + i * step < cols) {
            held[i] = piece(first + i * step);
            add(held[i]);
        }
    }
    for (int c = first + kHeld * step; c < cols; c += step) add(piece(c));
    const float scale = 1.0f / sqrtf(block_sum(squares) / cols + eps);
    const auto finish = [&](int c, const Vec<T, N>& v, const Vec<float, N>& w) {
        Vec<T, N> out;
#pragma unroll
        for (int j = 0; j < N; ++j) out.v[j] = from_float<T>(to_float(v.v[j]) * scale * w.v[j]);
        store_vec<T, N>(y.row(blockIdx.x) + c, out);
    };
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
        if (first + i * step < cols) finish(first + i * step, held[i], weights[i]);
    const T* again = Residual ? sum.row(blockIdx.x) : x.row(blockIdx.x);
    for (int c = first + kHeld * step; c < cols; c += step)
        finish(c, load_vec<T, N>(again + c), load_vec<float, N>(weight + c));
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
