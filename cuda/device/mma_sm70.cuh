// What device/mma.cuh needs from sm_75, out of shuffles and float32 arithmetic for sm_70, in float16: right,
// not fast. RVLLM_SM70_MMA, a macro given to nvcc, takes it on every architecture, so that it can be tested
// on any GPU.
#pragma once
#include <cuda_fp16.h>

#include <cstdint>

namespace rvllm::cuda::sm70 {

constexpr unsigned kWarp = ~0u;

template <bool Transposed>
__device__ __forceinline__ void ldmatrix4(uint32_t (&r)[4], uint32_t address) {
    const int lane = threadIdx.x % 32, row = lane / 4, pair = lane % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if constexpr (Transposed) {
            uint16_t of[2];
            for (int j = 0; j < 2; ++j) {
                const uint32_t at = __shfl_sync(kWarp, address, i * 8 + pair * 2 + j) + row * 2;
                asm volatile("ld.shared.u16 %0, [%1];" : "=h"(of[j]) : "r"(at) : "memory");
            }
            r[i] = of[0] | (uint32_t)of[1] << 16;
        } else {
            const uint32_t at = __shfl_sync(kWarp, address, i * 8 + row) + pair * 4;
            asm volatile("ld.shared.u32 %0, [%1];" : "=r"(r[i]) : "r"(at) : "memory");
        }
    }
}

__device__ __forceinline__ uint32_t transpose8(uint32_t x) {
    const int lane = threadIdx.x % 32, row = lane / 4, pair = lane % 4;
    // Element (row, 2 * pair + j) of the result is element (2 * pair + j, row) of x.
    const uint32_t first = __shfl_sync(kWarp, x, pair * 8 + row / 2);
    const uint32_t second = __shfl_sync(kWarp, x, pair * 8 + 4 + row / 2);
    return __byte_perm(first, second, row % 2 ? 0x7632 : 0x5410);
}

__device__ __forceinline__ float dot2(uint32_t a, uint32_t b, float sum) {
    const float2 x = __half22float2(reinterpret_cast<const __half2&>(a));
    const float2 y = __half22float2(reinterpret_cast<const __half2&>(b));
    return fmaf(x.y, y.y, fmaf(x.x, y.x, sum));
}

__device__ __forceinline__ void mma_k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const int lane = threadIdx.x % 32, row = lane / 4, pair = lane % 4;
#pragma unroll 1
    for (int s = 0; s < 4; ++s) {  // the lanes that hold columns of a, rows of b
        uint32_t of_a[4], of_b[2][2];
#pragma unroll
        for (int i = 0; i < 4; ++i) of_a[i] = __shfl_sync(kWarp, a[i], row * 4 + s);
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            of_b[c][0] = __shfl_sync(kWarp, b0, (pair * 2 + c) * 4 + s);
            of_b[c][1] = __shfl_sync(kWarp, b1, (pair * 2 + c) * 4 + s);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int c = i % 2, r = i / 2;
            d[i] = dot2(of_a[r], of_b[c][0], d[i]);
            d[i] = dot2(of_a[r + 2], of_b[c][1], d[i]);
        }
    }
}

}  // namespace rvllm::cuda::sm70
