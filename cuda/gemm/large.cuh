// linear_large_kernel (sm_90a): y = x @ weight^T for 128 tokens and more, bound by the tensor cores.
//
// Persistent clusters of R CTAs take tiles of R x 128 weight rows and Tokens tokens (large_schedule.cuh);
// each CTA fetches a share of the tokens for all. One warp streams tiles of weights and tokens into a
// ring, two warpgroups multiply 64 rows by all tokens each. The parts of a split tile hand their sums to
// each other through the workspace; each finishes a share of the tokens.
#pragma once
#include "device/bulk.cuh"
#include "device/cluster.cuh"
#include "device/mbarrier.cuh"
#include "device/pdl.cuh"
#include "gemm/large_epilogue.cuh"
#include "gemm/large_schedule.cuh"
#include "gemm/tile_math.cuh"

namespace rvllm::cuda {

constexpr int kLargeThreads = 384;  // two warpgroups that multiply, one of which a thread copies
constexpr int kLargeMaxStages = 8;
constexpr int kLargeMaxParts = 4;  // of a split tile
constexpr int kLargeMaxSmemBytes = 226 * 1024;

inline int large_smem_bytes(int tokens, int n_stages) {
    return 1024 + n_stages * (kTileBytes + tokens * 128) + 2 * kStagingBytes;
}

// v = *at if `valid`, without a branch.
__device__ __forceinline__ void load_if(float4& v, const float4* at, bool valid) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %5, 0;\n@p ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];\n}"
                 : "+f"(v.x), "+f"(v.y), "+f"(v.z), "+f"(v.w)
                 : "l"(at), "r"((int)valid)
                 : "memory");
}

// Between the parts of a split tile: publishes the sums of all pieces but [first, end), waits until the other
// parts have published theirs, and adds up [first, end) in the order of the parts.
template <int Tokens>
__device__ __forceinline__ void exchange_sums(float (&acc)[Tokens / 2], const LinearParams& p, int n_parts,
                                              const LargeSegment& s, int first, int end) {
    constexpr int kPieces = Tokens / kPieceTokens, kAtOnce = 4;
    constexpr size_t kTileSums = (size_t)(Tokens / 8) * 256;
    float4* const space = static_cast<float4*>(p.workspace) + threadIdx.x;
    float4* mine = space + blockIdx.x * kTileSums;
#pragma unroll
    for (int q = 0; q < kPieces; ++q) {
        if (q >= first && q < end) continue;
#pragma unroll
        for (int i = q * 4; i < q * 4 + 4; ++i)
            __stcg(mine + i * 256, make_float4(acc[i * 4], acc[i * 4 + 1], acc[i * 4 + 2], acc[i * 4 + 3]));
    }
    __threadfence();
    asm volatile("bar.sync 1, 256;" ::: "memory");
    if (threadIdx.x == 0) {
        unsigned* arrived = reinterpret_cast<unsigned*>(p.flags) + s.first_cta;
        const unsigned n = n_parts, wrap = 2 * n - 1;  // everybody arrives twice: then it is zero again
        atomicInc(arrived, wrap);
        unsigned seen;
        do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(arrived) : "memory");
        while (seen < n);
        atomicInc(arrived, wrap);
    }
    asm volatile("bar.sync 1, 256;" ::: "memory");
    const float4* theirs = space + s.first_cta * kTileSums;
#pragma unroll
    for (int q = 0; q < kPieces; ++q) {
        if (q < first || q >= end) continue;
#pragma unroll
        for (int i = q * 4; i < q * 4 + 4; i += kAtOnce) {
            float4 v[kLargeMaxParts][kAtOnce];
#pragma unroll
            for (int u = 0; u < kAtOnce; ++u) {
                float* own = acc + (i + u) * 4;
#pragma unroll
                for (int j = 0; j < kLargeMaxParts; ++j) {
                    const bool is_own = j == s.part;
                    v[j][u].x = is_own ? own[0] : 0;
                    v[j][u].y = is_own ? own[1] : 0;
                    v[j][u].z = is_own ? own[2] : 0;
                    v[j][u].w = is_own ? own[3] : 0;
                    load_if(v[j][u], theirs + (size_t)j * s.part_stride * kTileSums + (i + u) * 256,
                            j < n_parts && !is_own);
                }
            }
#pragma unroll
            for (int u = 0; u < kAtOnce; ++u) {
                float* own = acc + (i + u) * 4;
                float4 sum = v[0][u];
#pragma unroll
                for (int j = 1; j < kLargeMaxParts; ++j) sum = sum + v[j][u];
                own[0] = sum.x;
                own[1] = sum.y;
                own[2] = sum.z;
                own[3] = sum.w;
            }
        }
    }
}

template <typename T, int Tokens>
__global__ void __launch_bounds__(kLargeThreads, 1)
    linear_large_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap y_map,
                        const __grid_constant__ LargePlan plan, const __grid_constant__ LinearParams p) {
    constexpr uint32_t kTokenBytes = Tokens * 128;
    constexpr int kPieces = Tokens / kPieceTokens;
    extern __shared__ uint8_t smem_raw[];
    __shared__ __align__(8) uint64_t full[kLargeMaxStages], empty[kLargeMaxStages];

    const uint32_t base = (smem_ptr(smem_raw) + 1023) & ~1023u;
    // Broadcast, so that it is known to be the same in a whole warp, and descriptors stay in uniform
    // registers.
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    const int n_stages = p.n_stages, n_ranks = cluster_size(), rank = cluster_rank();
    const uint32_t weights = base, tokens = base + n_stages * kTileBytes;
    const LargeSchedule schedule(plan, blockIdx.x / n_ranks);

    if (warp >= 8) {
        registers_release<40>();
        const uint32_t full0 = smem_ptr(full), empty0 = smem_ptr(empty);
        const bool copies = threadIdx.x == 256;
        LargeCursor cursor(schedule, plan, p), behind = cursor;
        const uint64_t policy = plan.n_token_tiles == 1 ? policy_evict_first() : policy_evict_normal();
        auto load_weights = [&](int slot) {
            mbarrier_expect(full0 + slot * 8, kTileBytes + kTokenBytes);
            bulk_load(weights + slot * kTileBytes, cursor.weight, kTileBytes, full0 + slot * 8, policy);
        };
        const int total = schedule.total_chunks(), ahead = min(total, n_stages);
        if (copies) {
            for (int s = 0; s < n_stages; ++s) {
                mbarrier_init(full0 + s * 8, 1);
                mbarrier_init(empty0 + s * 8, 2 * n_ranks);
            }
            mbarrier_init_fence();
            for (int i = 0; i < ahead; ++i, cursor.advance()) load_weights(i);
            prefetch_tensor_map(&x_map);
        }
        __syncwarp();
        cluster_sync_relaxed();
        if (copies) {
            const uint32_t share = tokens + rank * (kTokenBytes / n_ranks);
            const uint16_t everybody = (uint16_t)((1 << n_ranks) - 1);
            auto load_tokens = [&](int slot, const LargeCursor& c) {
                const uint32_t dst = share + slot * kTokenBytes;
                if (n_ranks > 1) {
                    tensor_load_multicast(dst, &x_map, c.column, c.token, full0 + slot * 8, everybody);
                } else {
                    tensor_load(dst, &x_map, c.column, c.token, full0 + slot * 8);
                }
            };
            if (p.trigger >= total - ahead) pdl_launch_dependents();
            pdl_wait();
            for (int i = 0; i < ahead; ++i, behind.advance()) load_tokens(i, behind);
            RingPosition at;
            for (int left = total - ahead; left > 0; --left, cursor.advance(), at.advance(n_stages)) {
                mbarrier_wait(empty0 + at.slot * 8, at.parity);
                load_weights(at.slot);
                load_tokens(at.slot, cursor);
                if (left == p.trigger + 1) pdl_launch_dependents();
            }
        }
    } else {
        registers_claim<232>();
        using Math = TileMath<T, Tokens, 1>;
        Math math(weights, tokens);
        RingPosition at;
        LargeSchedule walk = schedule;
        LargeSegment s;
        LargeEpilogue<T> epilogue(p, plan.staged, &y_map,
                                  tokens + n_stages * kTokenBytes + warp / 4 * kStagingBytes);
        // One warp of each warpgroup gives a slot back to one CTA: products end for the whole warpgroup.
        const uint32_t emptied = cluster_address(smem_ptr(empty), min(warp % 4, n_ranks - 1));
        const bool releases = warp % 4 < n_ranks && lane == 0;
        auto release = [&](int slot) {
            if (releases) mbarrier_arrive_cluster(emptied + slot * 8);
        };
        if (threadIdx.x % 128 == 0) prefetch_tensor_map(&y_map);
        __syncwarp();
        cluster_sync_relaxed();
        while (walk.next(s)) {
            math.clear();
            math.run(s.end - s.begin, smem_ptr(full), n_stages, at, release);
            int first = 0, end = kPieces;
            if (s.part >= 0) {
                first = kPieces * s.part / plan.split;
                end = kPieces * (s.part + 1) / plan.split;
                exchange_sums<Tokens>(math.acc[0], p, plan.split, s, first, end);
            }
            pdl_wait();
            epilogue.template finish<Tokens>(math.acc[0], s.group * n_ranks + rank, s.token0, first, end);
        }
        if (threadIdx.x % 128 == 0) bulk_wait();
    }
    __syncwarp();
    cluster_sync_relaxed();  // nobody leaves while the others may still arrive at its barriers
}

}  // namespace rvllm::cuda
