// What the attention kernels on mma.sync do with tiles: paged loads into padded rows, fragments.
#pragma once
#include <cstdint>
#include <type_traits>

#include "attention/attention.h"
#include "attention/softmax.cuh"
#include "device/copy.cuh"
#include "device/mma.cuh"
#include "device/shared.cuh"
#include "device/pdl.cuh"

namespace rvllm::cuda {

#ifdef __CUDA_ARCH__
constexpr int kArch = __CUDA_ARCH__ / 10;
#else
constexpr int kArch = 0;
#endif
template <typename T>
constexpr bool kHasProducts = kArch >= 80 || (kArch >= 70 && std::is_same<T, __half>::value);

template <int D>
constexpr int kRowBytes = row_bytes(D);

// One warp loads Rows rows of D elements that lie one after the other; rows from n_valid on are zero. policy:
// that of copy16_async(), if any.
template <typename T, int D, int Rows, typename... Policy>
__device__ __forceinline__ void load_rows(uint32_t dst, const T* src, int n_valid, Policy... policy) {
    constexpr int kPieces = D / 8, kCopies = (Rows * kPieces + 31) / 32;
    const int lane = threadIdx.x % 32;
    if constexpr (32 % kPieces == 0) {  // one address: the others are constants away
        constexpr int kRows = 32 / kPieces;
        dst += lane / kPieces * kRowBytes<D> + lane % kPieces * 16;
        src += lane * 8;
        asm("" : "+l"(src), "+r"(dst));  // or each address is computed on its own
        n_valid -= lane / kPieces;
#pragma unroll
        for (int i = 0; i < kCopies; ++i)
            copy16_async(dst + i * kRows * kRowBytes<D>, src + i * 256, i * kRows < n_valid, policy...);
    } else {
#pragma unroll
        for (int i = 0; i < kCopies; ++i) {
            const int c = lane + 32 * i, row = c / kPieces;
            if (Rows * kPieces % 32 && row >= Rows) break;
            copy16_async(dst + row * kRowBytes<D> + c % kPieces * 16, src + c * 8, row < n_valid, policy...);
        }
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

}  // namespace rvllm::cuda
