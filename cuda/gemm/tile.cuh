// linear_tile_kernel (every architecture): y = x @ weight^T, one CTA per 128 weight rows and 64 tokens.
//
// Four warps of mma.sync, 32 weight rows each, over two stages of shared memory; cp.async fills them
// from sm_80 on. Right on every architecture and for every M, and fast on none: no K is split.
#pragma once
#include "device/mma.cuh"
#include "device/pdl.cuh"
#include "gemm/epilogue.cuh"

namespace rvllm::cuda {

constexpr int kTileThreads = 128;
constexpr int kTileTokens = 64;

// Sixteen bytes from global to shared memory, or zeros.
__device__ __forceinline__ void copy16(uint8_t* dst, const void* src, bool valid) {
#if __CUDA_ARCH__ >= 800
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(dst));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(src), "r"(valid ? 16 : 0)
                 : "memory");
#else
    *reinterpret_cast<uint4*>(dst) = valid ? *static_cast<const uint4*>(src) : make_uint4(0, 0, 0, 0);
#endif
}

__device__ __forceinline__ void copies_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int Pending>
__device__ __forceinline__ void copies_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads) linear_tile_kernel(const __grid_constant__ LinearParams p) {
    constexpr int kStageBytes = kTileBytes + kTileTokens * 128, kSumStride = kBlockRows + 4;
    __shared__ __align__(1024) uint8_t smem[2 * kStageBytes];
    static_assert(kTileTokens * kSumStride * 4 <= sizeof(smem), "the sums reuse the stages");
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int block = blockIdx.x, token0 = blockIdx.y * kTileTokens, chunks = (int)k_chunks(p.k);
    const uint8_t* w = p.weight + (size_t)block * chunks * kTileBytes;

    pdl_wait();
    pdl_launch_dependents();
    auto load = [&](int chunk) {
        uint8_t* stage = smem + chunk % 2 * kStageBytes;
        for (int i = threadIdx.x; i < kTileBytes / 16; i += kTileThreads)
            copy16(stage + i * 16, w + (size_t)chunk * kTileBytes + i * 16, true);
        for (int i = threadIdx.x; i < kTileTokens * 8; i += kTileThreads) {
            const int token = i / 8, piece = i % 8, column = chunk * kChunk + piece * 8;
            const bool valid = token0 + token < p.m && column < p.k;
            const T* src = static_cast<const T*>(p.x) + (valid ? (token0 + token) * p.x_stride + column : 0);
            copy16(stage + kTileBytes + token * 128 + ((piece ^ (token & 7)) << 4), src, valid);
        }
        copies_commit();
    };
    // Address of the 16-byte piece of a row that this lane hands to ldmatrix.
    auto piece_at = [](uint32_t tile, int row, int piece) {
        return tile + row * 128 + ((piece ^ (row & 7)) << 4);
    };

    float acc[2][kTileTokens / 8][4] = {};
    load(0);
    for (int c = 0; c < chunks; ++c) {
        if (c + 1 < chunks) {
            load(c + 1);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        const uint32_t a_tile = static_cast<uint32_t>(__cvta_generic_to_shared(smem + c % 2 * kStageBytes));
        const uint32_t b_tile = a_tile + kTileBytes;
#pragma unroll
        for (int k = 0; k < kChunk / 16; ++k) {
            uint32_t a[2][4];
#pragma unroll
            for (int r = 0; r < 2; ++r)
                ldmatrix4(a[r], piece_at(a_tile, warp * 32 + r * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
            for (int j = 0; j < kTileTokens / 8; j += 2) {
                uint32_t b[4];
                ldmatrix4(b, piece_at(b_tile, j * 8 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    mma_k16<T>(acc[r][j], a[r], b[0], b[1]);
                    mma_k16<T>(acc[r][j + 1], a[r], b[2], b[3]);
                }
            }
        }
        __syncthreads();
    }

    float* sums = reinterpret_cast<float*>(smem);  // [token][128 rows]
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int j = 0; j < kTileTokens / 8; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e)
                sums[(j * 8 + lane % 4 * 2 + e % 2) * kSumStride + warp * 32 + r * 16 + lane / 4 +
                     e / 2 * 8] = acc[r][j][e];
    __syncthreads();
    const int units = epilogue_units(p.act), unit = threadIdx.x % units, row = unit_row(p.act, unit);
    const UnitEpilogue<T> epilogue(p, block, unit);
    for (int t = threadIdx.x / units; t < kTileTokens && token0 + t < p.m; t += kTileThreads / units) {
        const float* at = sums + t * kSumStride + row;
        epilogue.finish(token0 + t, *reinterpret_cast<const float4*>(at),
                        *reinterpret_cast<const float4*>(at + (p.act == Act::silu_mul ? 8 : 0)));
    }
}

}  // namespace rvllm::cuda
