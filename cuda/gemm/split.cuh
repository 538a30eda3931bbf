// linear_split_kernel (sm_90a): y = x @ weight^T for few tokens, bound by reading the weights.
//
// The CTAs of a cluster divide the K of 128 weight rows. In each, one warp streams tiles of weights and
// tokens into a ring and two warpgroups multiply, weights on the 64-row side. Sums go to shared memory, then
// every CTA adds up its share of the features over the cluster, in rank order. The K ranges depend on K and
// the split only, so a row's bits do not depend on M. Weights arrive before the previous kernel ends.
#pragma once
#include "device/bulk.cuh"
#include "device/cluster.cuh"
#include "device/mbarrier.cuh"
#include "device/pdl.cuh"
#include "gemm/epilogue.cuh"
#include "gemm/tile_math.cuh"

namespace rvllm::cuda {

constexpr int kSplitThreads = 288;  // two warpgroups that multiply, one warp that copies
constexpr int kMaxStages = 12;
constexpr int kMaxSplit = 8;
// The sums of a tile lie as [token][128 rows], so far apart that fragments are written and rows are
// read without bank conflicts.
constexpr int kSumStride = kBlockRows + 4;
constexpr int kSplitMaxSmemBytes = 226 * 1024;

// Shared memory: 1 KB of alignment, then the ring; the sums reuse the ring.
inline int split_smem_bytes(int tokens, int n_stages) {
    const int ring = n_stages * (kTileBytes + tokens * 128), sums = tokens * kSumStride * 4;
    return 1024 + (ring > sums ? ring : sums);
}

template <typename T, int Tokens>
__global__ void __launch_bounds__(kSplitThreads)
    linear_split_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                        const __grid_constant__ LinearParams p) {
    constexpr uint32_t kTokenBytes = Tokens * 128;
    extern __shared__ uint8_t smem_raw[];
    __shared__ __align__(8) uint64_t full[kMaxStages], empty[kMaxStages];

    const uint32_t base = (smem_ptr(smem_raw) + 1023) & ~1023u;
    float* sums = reinterpret_cast<float*>(smem_raw + (base - smem_ptr(smem_raw)));
    const int n_stages = p.n_stages, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t weights = base, tokens = base + n_stages * kTileBytes;
    const int block = blockIdx.y, token0 = blockIdx.z * Tokens;
    const int chunks = (int)k_chunks(p.k), n_ranks = gridDim.x, rank = blockIdx.x;
    const int c0 = chunks * rank / n_ranks, n = chunks * (rank + 1) / n_ranks - c0;

    if (threadIdx.x == 0) {
        for (int s = 0; s < n_stages; ++s) {
            mbarrier_init(smem_ptr(&full[s]), 1);
            mbarrier_init(smem_ptr(&empty[s]), 8);
        }
        mbarrier_init_fence();
    }
    const uint8_t* w = p.weight + (size_t)(block * chunks + c0) * kTileBytes;
    const uint64_t policy = policy_evict_first();
    const int ahead = min(n, n_stages);
    auto load_weights = [&](int slot, int i) {
        const uint32_t dst = weights + slot * kTileBytes, bar = smem_ptr(&full[slot]);
        mbarrier_expect(bar, kTileBytes + kTokenBytes);
        if (p.rows) {
            tensor_load(dst, &w_map, (c0 + i) * kChunk, block * kBlockRows, bar, policy);
        } else {
            bulk_load(dst, w + (size_t)i * kTileBytes, kTileBytes, bar, policy);
        }
    };
    if (threadIdx.x == 0) {
        for (int i = 0; i < ahead; ++i) load_weights(i, i);
        if (p.trigger >= n - ahead) pdl_launch_dependents();
    }
    __syncthreads();

    if (warp == 8) {
        if (lane == 0) {
            auto load_tokens = [&](int slot, int i) {
                tensor_load(tokens + slot * kTokenBytes, &x_map, (c0 + i) * kChunk, token0,
                            smem_ptr(&full[slot]));
            };
            prefetch_map(&x_map);
            pdl_wait();
            for (int i = 0; i < ahead; ++i) load_tokens(i, i);
            RingPosition at;
            for (int i = ahead; i < n; ++i) {
                mbarrier_wait(smem_ptr(&empty[at.slot]), at.parity);
                load_weights(at.slot, i);
                load_tokens(at.slot, i);
                if (i + 1 + p.trigger == n) pdl_launch_dependents();
                at.advance(n_stages);
            }
        }
    } else {
        prefetch_bias(p, block);
        using Math = TileMath<T, Tokens>;
        Math math(weights, tokens);
        math.clear();
        RingPosition at;
        math.run(n, smem_ptr(full), n_stages, at, [&](int slot) {
            if (lane == 0) mbarrier_arrive(smem_ptr(&empty[slot]));
        });
        asm volatile("bar.sync 1, 256;" ::: "memory");  // the ring is read no more
#pragma unroll
        for (int r = 0; r < Math::kRowTiles; ++r)
#pragma unroll
            for (int j = 0; j < Math::kN / 8; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    sums[(math.token(j) + e % 2) * kSumStride + math.row(r) + e / 2 * 8] =
                        math.acc[r][j * 4 + e];
    }

    if (n_ranks > 1) {
        __syncwarp();
        cluster_sync();
    } else {
        __syncthreads();
    }
    if (warp < 8) {
        pdl_wait();
        const int units = epilogue_units(p.act), total = min(Tokens, p.m - token0) * units;
        const int first = total * rank / n_ranks, end = total * (rank + 1) / n_ranks;
        auto sum = [&](int token, int r) {
            const float* at = sums + token * kSumStride + r;
            if (n_ranks == 1) return *reinterpret_cast<const float4*>(at);
            const uint32_t address = smem_ptr(at);
            float4 v[kMaxSplit];
#pragma unroll
            for (int s = 0; s < kMaxSplit; ++s) v[s] = cluster_load(address, s, s < n_ranks);
#pragma unroll
            for (int s = 1; s < kMaxSplit; ++s) v[0] = v[0] + v[s];
            return v[0];
        };
        const int apart = p.act == Act::rope ? p.rope.head_dim / 2 : 8;  // the two fours of rows of a unit
        // Several units at a time, to have more reads of other CTAs in flight.
        constexpr int kAtOnce = Tokens >= 64 ? 2 : 1;
        for (int i0 = first + threadIdx.x; i0 < end; i0 += 256 * kAtOnce) {
            float4 v[kAtOnce], up[kAtOnce];
#pragma unroll
            for (int u = 0; u < kAtOnce; ++u) {
                const int i = min(i0 + u * 256, end - 1);
                const int row =
                    p.act == Act::rope ? rope_row(p.rope.head_dim, i % units) : unit_row(p.act, i % units);
                v[u] = sum(i / units, row);
                if (p.act != Act::none) up[u] = sum(i / units, row + apart);
            }
#pragma unroll
            for (int u = 0; u < kAtOnce; ++u) {
                const int i = i0 + u * 256, unit = i % units, token = token0 + i / units;
                if (i >= end) break;
                if (p.act == Act::rope) {
                    RopeEpilogue<T>(p, block, unit).finish(token, v[u], up[u]);
                } else {
                    UnitEpilogue<T>(p, block, unit).finish(token, v[u], up[u]);
                }
            }
        }
    }
    if (n_ranks > 1) {  // nobody leaves while its shared memory is in use elsewhere
        __syncwarp();
        cluster_sync_relaxed();
    }
}

}  // namespace rvllm::cuda
