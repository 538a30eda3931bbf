// The products of a tile of 128 weight rows and Tokens tokens by two warpgroups (sm_90a).
//
// Up to 192 tokens each warpgroup takes 64 rows and all tokens. Of 256 tokens each takes one half
// and all rows, as two independent chains of products.
#pragma once
#include "device/mbarrier.cuh"
#include "device/wgmma.cuh"
#include "gemm/layout.h"

namespace rvllm::cuda {

template <typename T, int Tokens, int RowTiles = Tokens == 256 ? 2 : 1>
struct TileMath {
    static constexpr int kRowTiles = RowTiles;     // of 64 rows, per warpgroup
    static constexpr int kN = Tokens / kRowTiles;  // tokens per warpgroup
    static constexpr uint32_t kTokenBytes = Tokens * 128;

    // acc[r][4 * j + e]: stored row row(r) + e / 2 * 8, token token(j) + e % 2 of the tile.
    float acc[kRowTiles][kN / 2];
    int warp, lane;
    uint32_t a, b;  // descriptors of slot 0, low words

    __device__ __forceinline__ TileMath(uint32_t weights, uint32_t tokens)
        : warp(threadIdx.x / 32), lane(threadIdx.x % 32) {
        const int group = __shfl_sync(~0u, warp / 4, 0);  // known to be uniform: descriptors without moves
        a = (uint32_t)wgmma_descriptor(weights + (kRowTiles == 1 ? group * (kTileBytes / 2) : 0));
        b = (uint32_t)wgmma_descriptor(tokens + (kRowTiles == 1 ? 0 : group * kN * 128));
    }

    __device__ __forceinline__ int row(int r) const {
        return (kRowTiles == 1 ? warp * 16 : r * 64 + warp % 4 * 16) + lane / 4;
    }
    __device__ __forceinline__ int token(int j) const {
        return (kRowTiles == 1 ? 0 : warp / 4 * kN) + j * 8 + lane % 4 * 2;
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
            for (int i = 0; i < kN / 2; ++i) acc[r][i] = 0;
    }

    // `n` > 0 chunks from the ring; `release(slot)` gives a slot back. Little may stand
    // between the products of two chunks: the tensor cores run dry in less than 200 cycles.
    template <typename Release>
    __device__ __forceinline__ void run(int n, uint32_t full, int n_stages, RingPosition& at,
                                        Release release) {
        constexpr uint64_t kHigh = (uint64_t)0x40000040 << 32;  // 128-byte swizzle, 8 rows are 1024 bytes
        auto issue = [&] {
            mbarrier_wait(full + at.slot * 8, at.parity);
            const int slot = __shfl_sync(~0u, at.slot, 0);  // uniform, as above
            const uint32_t a_slot = a + slot * (kTileBytes >> 4), b_slot = b + slot * (kTokenBytes >> 4);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < kChunk / 16; ++k)
#pragma unroll
                for (int r = 0; r < kRowTiles; ++r)
                    Wgmma<T, kN>::run(acc[r], kHigh | (a_slot + r * (kTileBytes >> 5) + 2 * k),
                                      kHigh | (b_slot + 2 * k));
            wgmma_commit();
        };
        fence_sums();
        issue();
        int previous = at.slot;
        at.advance(n_stages);
        for (int i = 1; i < n; ++i) {
            issue();
            wgmma_wait<1>();
            release(previous);
            previous = at.slot;
            at.advance(n_stages);
        }
        wgmma_wait<0>();
        fence_sums();
        release(previous);
    }

private:
    // Keeps the compiler from moving uses of the sums past this point, into the products.
    __device__ __forceinline__ void fence_sums() {
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
            for (int i = 0; i < kN / 2; ++i) asm volatile("" : "+f"(acc[r][i])::"memory");
    }
};

}  // namespace rvllm::cuda
