// Launching from an op: grid, the dependent-launch attribute, typed operands, vectors of 16 bytes.
#pragma once
#include <utility>

#include "context.h"
#include "device/convert.cuh"
#include "device/launch.cuh"
#include "device/pdl.cuh"
#include "kernels.h"

namespace rvllm::cuda {

template <typename... Params, typename... Args>
void launch(const OpCall& call, const RunContext& ctx, void (*kernel)(Params...), dim3 grid, int threads,
            size_t smem_bytes, Args&&... args) {
    Context& c = context_of(ctx);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    note_error(
        c, call,
        launch_kernel(kernel, {grid, threads, smem_bytes}, c.stream, c.pdl, std::forward<Args>(args)...));
}

// A matrix of a kernel: rows `stride` elements apart.
template <typename T>
struct Rows {
    T* data;
    int64_t stride;
    __device__ __forceinline__ T* row(int64_t r) const { return data + r * stride; }
};

template <typename T>
Rows<T> rows(const Operand& o) {
    return {static_cast<T*>(o.data), o.row_stride};
}

// Whether rows of all operands may be read and written `n` elements at a time.
template <typename... Operands>
bool aligned(int n, const Operands&... operands) {
    const auto one = [n](const Operand& o) {
        const size_t bytes = n * dtype_bytes(o.dtype);
        return reinterpret_cast<uintptr_t>(o.data) % bytes == 0 && o.row_stride % n == 0 && o.cols % n == 0;
    };
    return (one(operands) && ...);
}

// N elements of T that move together.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vec {
    T v[N];
};

template <typename T, int N>
__device__ __forceinline__ Vec<T, N> load_vec(const T* p) {
    return *reinterpret_cast<const Vec<T, N>*>(p);
}
template <typename T, int N>
__device__ __forceinline__ void store_vec(T* p, const Vec<T, N>& v) {
    *reinterpret_cast<Vec<T, N>*>(p) = v;
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) x += __shfl_xor_sync(0xffffffff, x, i);
    return x;
}

// Calls f with a null pointer of the CUDA type of `t`: f16 or bf16.
template <typename F>
void with_type(DType t, const F& f) {
    if (t == DType::f16) {
        f(static_cast<__half*>(nullptr));
    } else {
        f(static_cast<__nv_bfloat16*>(nullptr));
    }
}

}  // namespace rvllm::cuda
