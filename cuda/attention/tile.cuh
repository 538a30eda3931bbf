// What both attention kernels do with tiles: paged loads into padded rows, fragments, online softmax.
#pragma once
#include <cstdint>

#include "attention/attention.h"
#include "attention/params.h"
#include "device/convert.cuh"
#include "device/mma.cuh"
#include "device/pdl.cuh"

namespace rvllm::cuda {

template <int D>
constexpr int kRowBytes = row_bytes(D);

__device__ __forceinline__ uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Copies 16 bytes.
__device__ __forceinline__ void copy16_async(uint32_t dst, const void* src) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst), "l"(src) : "memory");
}

// Copies 16 bytes, or writes zeros.
__device__ __forceinline__ void copy16_async(uint32_t dst, const void* src, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(valid ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int Pending>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

__device__ __forceinline__ void ldmatrix4_trans(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
}

// One warp loads kGranule rows of D elements that lie one after the other; rows from n_valid on are zero.
template <typename T, int D>
__device__ __forceinline__ void load_granule(uint32_t dst, const T* src, int n_valid) {
    constexpr int kPieces = D / 8, kCopies = kGranule * kPieces / 32;
    const int lane = threadIdx.x % 32;
    src += lane * 8;
    if (n_valid >= kGranule) {
#pragma unroll
        for (int i = 0; i < kCopies; ++i) {
            const int c = lane + 32 * i;
            copy16_async(dst + c / kPieces * kRowBytes<D> + c % kPieces * 16, src + i * 256);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
        const int c = lane + 32 * i;
        copy16_async(dst + c / kPieces * kRowBytes<D> + c % kPieces * 16, src + i * 256,
                     c / kPieces < n_valid);
    }
}

// Offset in a tile of the row address that a lane gives to ldmatrix for B = keys^T (not transposed):
// matrices (keys 0-7, d 0-7), (keys 0-7, d 8-15), (keys 8-15, d 0-7), (keys 8-15, d 8-15).
template <int D>
__device__ __forceinline__ uint32_t key_offset() {
    const int lane = threadIdx.x % 32;
    return (lane % 8 + lane / 16 * 8) * kRowBytes<D> + lane / 8 % 2 * 16;
}

// The same for B = values (transposed on load): (keys 0-7, d 0-7), (keys 8-15, d 0-7), then d 8-15.
template <int D>
__device__ __forceinline__ uint32_t value_offset() {
    const int lane = threadIdx.x % 32;
    return lane % 16 * kRowBytes<D> + lane / 16 * 16;
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
        const float keep = exp2f(rows.max[h] - base);
        rows.max[h] = top;
        rows.sum[h] *= keep;
#pragma unroll
        for (int t = 0; t < Tiles; ++t) {
#pragma unroll
            for (int i = 2 * h; i < 2 * h + 2; ++i) {
                s[t][i] = exp2f(fmaf(s[t][i], scale, -base));
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
