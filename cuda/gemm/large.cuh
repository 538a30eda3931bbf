// linear_large_kernel (sm_90a): y = x @ weight^T for more than 64 tokens, bound by the tensor cores.
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
constexpr int kLargeMaxSmemBytes = 226 * 1024;

inline int large_smem_bytes(int tokens, int n_stages) {
    return 1024 + n_stages * (kTileBytes + tokens * 128) + 2 * kStagingBytes;
}

// Between the parts of a split tile: publishes the sums of all pieces but [first, end), waits until the other
// parts have published theirs, has those copied to `ring`, which is empty by now, and adds them up.
template <int Tokens>
__device__ __forceinline__ void exchange_sums(float (&acc)[Tokens / 2], const LinearParams& p, int n_parts,
                                              const LargeSegment& s, int first, int end, uint32_t ring,
                                              uint32_t copied) {
    constexpr int kPieces = Tokens / kPieceTokens, kThreads = 256;
    constexpr int kQuads = 4;  // float4 of a thread per piece
    constexpr uint32_t kPieceSums = kQuads * kThreads * sizeof(float4), kTileSums = kPieces * kPieceSums;
    char* const space = static_cast<char*>(p.workspace);
    float4* const mine = reinterpret_cast<float4*>(space + (size_t)blockIdx.x * kTileSums) + threadIdx.x;
#pragma unroll
    for (int q = 0; q < kPieces; ++q) {
        if (q >= first && q < end) continue;
#pragma unroll
        for (int i = q * kQuads; i < (q + 1) * kQuads; ++i)
            __stcg(mine + i * kThreads,
                   make_float4(acc[i * 4], acc[i * 4 + 1], acc[i * 4 + 2], acc[i * 4 + 3]));
    }
    async_proxy_fence_global();
    asm volatile("bar.sync 1, 256;" ::: "memory");
    const uint32_t bytes = (end - first) * kPieceSums;
    auto other = [&](int i) { return s.part + i < n_parts ? s.part + i : s.part + i - n_parts; };
    if (threadIdx.x == 0) {
        unsigned* arrived = reinterpret_cast<unsigned*>(p.flags) + s.first_cta;
        const unsigned n = n_parts, wrap = 2 * n - 1;  // everybody arrives twice: then it is zero again
        mbarrier_expect(copied, (n_parts - 1) * bytes);
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
        atomicInc(arrived, wrap);
        unsigned seen;
        do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(arrived) : "memory");
        while (seen < n);
        async_proxy_fence_global();
        const char* theirs = space + (size_t)s.first_cta * kTileSums + first * kPieceSums;
#pragma unroll 1
        for (int i = 1; i < n_parts; ++i)
            bulk_load(ring + (i - 1) * bytes, theirs + (size_t)other(i) * s.part_stride * kTileSums, bytes,
                      copied, policy_evict_normal());
        atomicInc(arrived, wrap);
    }
    __syncwarp();
    mbarrier_wait(copied, 0);
    // In the order of the parts from this one on: the same in every run.
    uint32_t from = ring - first * kPieceSums + threadIdx.x * (uint32_t)sizeof(float4);
#pragma unroll 1
    for (int i = 1; i < n_parts; ++i, from += bytes) {
#pragma unroll
        for (int q = 0; q < kPieces; ++q) {
            if (q < first || q >= end) continue;
#pragma unroll
            for (int j = q * kQuads; j < (q + 1) * kQuads; ++j) {
                const float4 v = shared_load4(from + j * kThreads * (uint32_t)sizeof(float4));
                acc[j * 4] += v.x;
                acc[j * 4 + 1] += v.y;
                acc[j * 4 + 2] += v.z;
                acc[j * 4 + 3] += v.w;
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
    __shared__ __align__(8) uint64_t full[kLargeMaxStages], empty[kLargeMaxStages], copied;

    if (threadIdx.x == 0) {
        prefetch_tensor_map(&x_map);
        prefetch_tensor_map(&y_map);
    }
    const uint32_t base = (smem_ptr(smem_raw) + 1023) & ~1023u;
    // Broadcast, so that it is known to be the same in a whole warp, and descriptors stay in uniform
    // registers.
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    const int n_stages = p.n_stages, n_ranks = cluster_size(), rank = cluster_rank();
    const uint32_t weights = base, tokens = base + n_stages * kTileBytes;
    LargeSchedule walk(plan, blockIdx.x / n_ranks);
    LargeSegment s;

    if (warp >= 8) {
        registers_release<40>();
        const uint32_t full0 = smem_ptr(full), empty0 = smem_ptr(empty);
        const bool copies = threadIdx.x == 256;
        const uint64_t policy = plan.n_token_tiles == 1 ? policy_evict_first() : policy_evict_normal();
        LargeSource from = {};
        int ahead = 0;  // chunks of the first segment whose weights are asked for before the wait
        if (copies) {
#pragma unroll 1
            for (int i = 0; i < n_stages; ++i) {
                mbarrier_init(full0 + i * 8, 1);
                mbarrier_init(empty0 + i * 8, 2 * n_ranks);
            }
            mbarrier_init(smem_ptr(&copied), 1);
            mbarrier_init_fence();
        }
        auto load_weights = [&](int slot) {
            mbarrier_expect(full0 + slot * 8, kTileBytes + kTokenBytes);
            bulk_load(weights + slot * kTileBytes, from.weight, kTileBytes, full0 + slot * 8, policy);
            from.weight += kTileBytes;
        };
        if (copies && walk.next(s)) {
            from.open(p, plan, s, rank, n_ranks);
            ahead = min(from.left, n_stages);
#pragma unroll 1
            for (int i = 0; i < ahead; ++i) load_weights(i);
        }
        __syncwarp();
        cluster_sync_relaxed();
        if (ahead) {
            const uint32_t share = tokens + rank * (kTokenBytes / n_ranks);
            const uint16_t everybody = (uint16_t)((1 << n_ranks) - 1);
            if (s.last && p.trigger >= from.left - ahead) pdl_launch_dependents();
            pdl_wait();
            RingPosition at;
            do {
#pragma unroll 1
                for (; from.left > 0; --from.left) {
                    if (--ahead < 0) {
                        mbarrier_wait(empty0 + at.slot * 8, at.parity ^ 1);
                        load_weights(at.slot);
                        if (s.last && from.left <= p.trigger + 1) pdl_launch_dependents();
                    }
                    const uint32_t dst = share + at.slot * kTokenBytes, bar = full0 + at.slot * 8;
                    if (n_ranks > 1) {
                        tensor_load_multicast(dst, &x_map, from.column, from.token, bar, everybody);
                    } else {
                        tensor_load(dst, &x_map, from.column, from.token, bar);
                    }
                    from.column += kChunk;
                    at.advance(n_stages);
                }
                if (!walk.next(s)) break;
                from.open(p, plan, s, rank, n_ranks);
            } while (true);
        }
    } else {
        registers_claim<232>();
        using Math = TileMath<T, Tokens, 1>;
        Math math(weights, tokens);
        RingPosition at;
        LargeEpilogue<T> epilogue(p, plan.staged, &y_map,
                                  tokens + n_stages * kTokenBytes + warp / 4 * kStagingBytes);
        // One warp of each warpgroup gives a slot back to one CTA: products end for the whole warpgroup.
        const uint32_t emptied = cluster_address(smem_ptr(empty), min(warp % 4, n_ranks - 1));
        const bool releases = warp % 4 < n_ranks && lane == 0;
        auto release = [&](int slot) {
            if (releases) mbarrier_arrive_cluster(emptied + slot * 8);
        };
        __syncwarp();
        cluster_sync_relaxed();
        while (walk.next(s)) {
            epilogue.template begin<Tokens>(math.acc[0], s.group * n_ranks + rank, s.part <= 0);
            math.run(s.end - s.begin, smem_ptr(full), n_stages, at, release);
            int first = 0, end = kPieces;
            if (s.part >= 0) {
                first = plan.split.quotient(kPieces * s.part);
                end = plan.split.quotient(kPieces * (s.part + 1));
                exchange_sums<Tokens>(math.acc[0], p, plan.split.n, s, first, end, base, smem_ptr(&copied));
            }
            pdl_wait();
            epilogue.template finish<Tokens>(math.acc[0], s.token0, first, end);
        }
        if (threadIdx.x % 128 == 0) bulk_wait();
    }
    __syncwarp();
    cluster_sync_relaxed();  // nobody leaves while the others may still arrive at its barriers
}

}  // namespace rvllm::cuda
