// finish_linear: bias, activation and residual behind a product of cuBLASLt; one thread per eight features.
#include "device/convert.cuh"
#include "device/launch.cuh"
#include "device/pdl.cuh"
#include "gemm/cublas.h"
#include "gemm/epilogue.cuh"

namespace rvllm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWidth = 8;  // features: with silu_mul, a group of gates and its up projections

template <typename T>
struct alignas(16) Eight {
    T v[kWidth];
};

template <typename T>
__device__ __forceinline__ void load(float (&to)[kWidth], const T* from, int n, bool vector) {
    if (vector && n == kWidth) {
        const Eight<T> e = *reinterpret_cast<const Eight<T>*>(from);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) to[i] = to_float(e.v[i]);
    } else {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) to[i] = i < n ? to_float(from[i]) : 0.f;
    }
}

template <typename T, typename Out>
__global__ void finish_kernel(LinearArgs a, int n_features, bool vector) {
    pdl_launch_dependents();
    pdl_wait();
    const bool pairs = a.act == Act::silu_mul;
    const int first = (blockIdx.x * kThreads + threadIdx.x) * kWidth, n = min(kWidth, n_features - first);
    const int64_t token = blockIdx.y;
    if (n <= 0) return;
    Out* y = static_cast<Out*>(a.y) + token * a.y_stride + first;
    const Out* product = pairs ? static_cast<const Out*>(a.scratch) + token * a.n + 2 * first : y;
    float v[kWidth], other[kWidth];
    load(v, product, n, vector);
    if (a.bias)
        for (int i = 0; i < n; ++i) v[i] += a.bias[first + i];
    if (pairs) {
        load(other, product + kWidth, n, vector);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
            const float up_bias = a.bias && i < n ? a.bias[n_features + first + i] : 0.f;
            v[i] = silu(v[i]) * (other[i] + up_bias);
        }
    }
    if (a.residual) {
        load(other, static_cast<const T*>(a.residual) + token * a.residual_stride + first, n, vector);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) v[i] += other[i];
    }
    if (vector && n == kWidth) {
        Eight<Out> e;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) e.v[i] = from_float<Out>(v[i]);
        *reinterpret_cast<Eight<Out>*>(y) = e;
    } else {
        for (int i = 0; i < n; ++i) y[i] = from_float<Out>(v[i]);
    }
}

template <typename T, typename Out>
cudaError_t launch(const LinearArgs& a, cudaStream_t stream, bool pdl) {
    const int n_features = a.act == Act::silu_mul ? a.n / 2 : a.n;
    const auto fits = [](const void* p, int64_t stride) {
        return reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride % kWidth == 0;
    };
    const bool vector = fits(a.y, a.y_stride) && (!a.residual || fits(a.residual, a.residual_stride));
    const dim3 grid((unsigned)ceil_div(n_features, kThreads * kWidth), (unsigned)a.m);
    return launch_kernel(finish_kernel<T, Out>, {grid, kThreads}, stream, pdl, a, n_features, vector);
}

}  // namespace

cudaError_t finish_linear(const LinearArgs& a, DType dtype, cudaStream_t stream, bool pdl) {
    if (a.act == Act::rope || (a.act == Act::silu_mul && a.n % 16)) return cudaErrorInvalidValue;
    if (dtype == DType::f16)
        return a.out == DType::f32 ? launch<__half, float>(a, stream, pdl)
                                   : launch<__half, __half>(a, stream, pdl);
    return a.out == DType::f32 ? launch<__nv_bfloat16, float>(a, stream, pdl)
                               : launch<__nv_bfloat16, __nv_bfloat16>(a, stream, pdl);
}

}  // namespace rvllm::cuda
