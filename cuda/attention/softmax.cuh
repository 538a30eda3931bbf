// The online softmax on accumulators of tensor cores: a row lies in four lanes.
#pragma once
#include <cstdint>

#include "device/convert.cuh"

namespace rvllm::cuda {

// 2^x as the hardware has it: 2 ulp, and 0 for results below 2^-126.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Maximum and sum over the four lanes that hold one row of an accumulator.
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffff, x, 1);
    return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// Maximum and sum over the eight lanes that hold one column of an accumulator.
__device__ __forceinline__ float column_max(float x) {
#pragma unroll
    for (int i = 4; i < 32; i *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, i));
    return x;
}
__device__ __forceinline__ float column_sum(float x) {
#pragma unroll
    for (int i = 4; i < 32; i *= 2) x += __shfl_xor_sync(0xffffffff, x, i);
    return x;
}

// Maximum and sum over a warp.
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, i));
    return x;
}
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) x += __shfl_xor_sync(0xffffffff, x, i);
    return x;
}

// Two rows of the running softmax: of an accumulator's elements 0, 1 and of 2, 3.
struct SoftmaxRows {
    float max[2] = {-INFINITY, -INFINITY};
    float sum[2] = {0, 0};  // of this lane's columns until the end
};

// Turns scores (dot products) into weights, and scales what was accumulated before. `scale` includes log2(e).
template <int Tiles, int OutTiles>
__device__ __forceinline__ void softmax_step(float (&s)[Tiles][4], float (&out)[OutTiles][4],
                                             SoftmaxRows& rows, float scale) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float top = -INFINITY;
#pragma unroll
        for (int t = 0; t < Tiles; ++t) top = fmaxf(top, fmaxf(s[t][2 * h], s[t][2 * h + 1]));
        top = fmaxf(rows.max[h], quad_max(top) * scale);
        const float base = top == -INFINITY ? 0.0f : top;  // a row that sees nothing yet
        const float keep = exp2_fast(rows.max[h] - base);
        rows.max[h] = top;
        rows.sum[h] *= keep;
#pragma unroll
        for (int t = 0; t < Tiles; ++t) {
#pragma unroll
            for (int i = 2 * h; i < 2 * h + 2; ++i) {
                s[t][i] = exp2_fast(fmaf(s[t][i], scale, -base));
                rows.sum[h] += s[t][i];
            }
        }
#pragma unroll
        for (int t = 0; t < OutTiles; ++t) {
            out[t][2 * h] *= keep;
            out[t][2 * h + 1] *= keep;
        }
    }
}

// The A fragment of weights for 16 keys: two accumulator tiles.
template <typename T>
__device__ __forceinline__ void weights_fragment(uint32_t (&a)[4], const float (&lo)[4],
                                                 const float (&hi)[4]) {
    a[0] = pack2<T>(lo[0], lo[1]);
    a[1] = pack2<T>(lo[2], lo[3]);
    a[2] = pack2<T>(hi[0], hi[1]);
    a[3] = pack2<T>(hi[2], hi[3]);
}

}  // namespace rvllm::cuda
