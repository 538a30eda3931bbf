// linear_wide_kernel (sm_90a): y = x @ weight^T when there are more tiles than multiprocessors.
//
// Persistent clusters of R CTAs take tiles of R x 128 weight rows and Tokens tokens; each CTA fetches
// a part of the tokens for all. Whole rounds of tiles come first in an order that reuses L2;
// the rest, one to two tiles per cluster, is cut evenly along K (stream-K). A tile cut in two is
// begun by the cluster that does it before all else, which leaves its sums in the workspace, and
// finished by the next cluster, which does it after all else: nobody waits in practice. The cuts
// depend on N, K, the number of token tiles and the chip only. Warp roles are those of split.cuh.
#pragma once
#include "device/bulk.cuh"
#include "device/cluster.cuh"
#include "device/mbarrier.cuh"
#include "device/pdl.cuh"
#include "device/wgmma.cuh"
#include "gemm/epilogue.cuh"

namespace rvllm::cuda {

constexpr int kWideThreads = 288;
constexpr int kWideMaxStages = 12;
constexpr int kWideMaxSmemBytes = 214 * 1024;
constexpr int kStageStride = 20;   // floats between tokens where a warp turns its 16 rows around
constexpr int kBandTokens = 2048;  // tokens whose tiles run side by side

inline int wide_smem_bytes(int tokens, int n_stages) { return 1024 + n_stages * (kTileBytes + tokens * 128); }

// The part of one tile that a cluster computes: chunks [begin, end) of `tile`.
struct WideSegment {
    int tile, begin, end;
    bool publish;  // leaves its sums to the next cluster
    bool collect;  // adds the sums of the previous cluster
};

// The segments of one cluster, in order.
class WideSchedule {
 public:
    __device__ __forceinline__ WideSchedule(int n_tiles, int chunks, int cluster, int n_clusters)
        : chunks_(chunks), cluster_(cluster), n_clusters_(n_clusters) {
        const int rest = n_tiles % n_clusters;
        n_rounds_ = n_tiles / n_clusters - (rest != 0);
        first_ = n_rounds_ * n_clusters;
        const int64_t units = rest ? (int64_t)(rest + n_clusters) * chunks : 0;
        begin_ = (int)(units * cluster / n_clusters);
        end_ = (int)(units * (cluster + 1) / n_clusters);
        step_ = end_ % chunks ? -1 : 0;
        next_ = ceil_div(begin_, chunks);
    }

    __device__ __forceinline__ bool next(WideSegment& s) {
        s = {0, 0, chunks_, false, false};
        if (step_ < 0) {
            s.tile = first_ + end_ / chunks_;
            s.end = end_ % chunks_;
            s.publish = true;
            step_ = 0;
            return true;
        }
        if (step_ < n_rounds_) {
            s.tile = step_++ * n_clusters_ + cluster_;
            return true;
        }
        if (next_ < end_ / chunks_) {
            s.tile = first_ + next_++;
            return true;
        }
        if (step_ == n_rounds_ && begin_ % chunks_) {
            s.tile = first_ + begin_ / chunks_;
            s.begin = begin_ % chunks_;
            s.collect = true;
            ++step_;
            return true;
        }
        return false;
    }

    __device__ __forceinline__ int total_chunks() const { return n_rounds_ * chunks_ + end_ - begin_; }

 private:
    int chunks_, cluster_, n_clusters_, n_rounds_, first_, begin_, end_, step_;
    int64_t next_;
};

struct WideTile {
    int group, token0;  // of R row blocks; first token
};

// Tiles of neighbouring indices share weights, then tokens.
__device__ __forceinline__ WideTile wide_tile(int tile, int n_groups, int n_token_tiles, int tokens) {
    const int band = kBandTokens / tokens, in_band = band * n_groups;
    const int b = tile / in_band, r = tile % in_band, width = min(band, n_token_tiles - b * band);
    return {r / width, (b * band + r % width) * tokens};
}

// Walks through the chunks of all segments of a cluster. The divisions of wide_tile() are too slow
// to repeat for every chunk.
class WideCursor {
 public:
    __device__ __forceinline__ WideCursor(const WideSchedule& schedule, int n_groups, int n_token_tiles,
                                          int tokens)
        : schedule_(schedule), n_groups_(n_groups), n_token_tiles_(n_token_tiles), tokens_(tokens) {
        open();
    }
    __device__ __forceinline__ WideTile tile() const { return tile_; }
    __device__ __forceinline__ int chunk() const { return chunk_; }
    __device__ __forceinline__ void advance() {
        if (++chunk_ == segment_.end) open();
    }

 private:
    __device__ __forceinline__ void open() {
        if (!schedule_.next(segment_)) return;
        chunk_ = segment_.begin;
        tile_ = wide_tile(segment_.tile, n_groups_, n_token_tiles_, tokens_);
    }

    WideSchedule schedule_;
    WideSegment segment_;
    WideTile tile_;
    int n_groups_, n_token_tiles_, tokens_, chunk_;
};

template <typename T, int Tokens>
__global__ void __launch_bounds__(kWideThreads, 1)
    linear_wide_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ LinearParams p) {
    constexpr uint32_t kTokenBytes = Tokens * 128;
    // A warp turns its sums around in shared memory, 16 rows and so many tokens at a time.
    constexpr int kStageTokens = Tokens < 16 ? 8 : 16;
    extern __shared__ uint8_t smem_raw[];
    __shared__ __align__(8) uint64_t full[kWideMaxStages], empty[kWideMaxStages];
    __shared__ __align__(16) float stage[8][kStageTokens * kStageStride];

    const uint32_t base = (smem_ptr(smem_raw) + 1023) & ~1023u;
    const int n_stages = p.n_stages, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t weights = base, tokens = base + n_stages * kTileBytes;
    const int chunks = (int)k_chunks(p.k), n_blocks = (int)row_blocks(p.n), n_ranks = cluster_size();
    const int n_groups = (n_blocks + n_ranks - 1) / n_ranks;
    const int n_token_tiles = (p.m + Tokens - 1) / Tokens;
    const int rank = cluster_rank();
    const WideSchedule schedule(n_groups * n_token_tiles, chunks, blockIdx.x / n_ranks, gridDim.x / n_ranks);

    if (threadIdx.x == 0) {
        for (int s = 0; s < n_stages; ++s) {
            mbarrier_init(smem_ptr(&full[s]), 1);
            mbarrier_init(smem_ptr(&empty[s]), 8 * n_ranks);
        }
        mbarrier_init_fence();
    }
    __syncwarp();
    cluster_sync();

    if (warp == 8) {
        if (lane == 0) {
            const uint64_t policy = policy_evict_first();
            const int part = Tokens / n_ranks;
            auto load_weights = [&](int slot, const WideCursor& c) {
                const int block = min(c.tile().group * n_ranks + rank, n_blocks - 1);
                const uint32_t bar = smem_ptr(&full[slot]);
                mbarrier_expect(bar, kTileBytes + kTokenBytes);
                bulk_load(weights + slot * kTileBytes,
                          p.weight + ((size_t)block * chunks + c.chunk()) * kTileBytes, kTileBytes, bar,
                          policy);
            };
            auto load_tokens = [&](int slot, const WideCursor& c) {
                const uint32_t dst = tokens + slot * kTokenBytes + rank * part * 128,
                               bar = smem_ptr(&full[slot]);
                const int x = c.chunk() * kChunk, y = c.tile().token0 + rank * part;
                if (n_ranks > 1) {
                    tensor_load_multicast(dst, &x_map, x, y, bar, (uint16_t)((1 << n_ranks) - 1));
                } else {
                    tensor_load(dst, &x_map, x, y, bar);
                }
            };
            const int total = schedule.total_chunks(), ahead = min(total, n_stages);
            WideCursor cursor(schedule, n_groups, n_token_tiles, Tokens), behind = cursor;
            for (int i = 0; i < ahead; ++i, cursor.advance()) load_weights(i, cursor);
            if (p.trigger >= total - ahead) pdl_launch_dependents();
            pdl_wait();
            for (int i = 0; i < ahead; ++i, behind.advance()) load_tokens(i, behind);
            RingPosition at;
            for (int i = ahead; i < total; ++i, cursor.advance(), at.advance(n_stages)) {
                mbarrier_wait(smem_ptr(&empty[at.slot]), at.parity);
                load_weights(at.slot, cursor);
                load_tokens(at.slot, cursor);
                if (i + 1 + p.trigger == total) pdl_launch_dependents();
            }
        }
    } else {
        float acc[Tokens / 2];
        RingPosition at;
        WideSchedule walk = schedule;
        WideSegment segment;
        float4* mine =
            static_cast<float4*>(p.workspace) + (size_t)blockIdx.x * (Tokens / 8) * 256 + threadIdx.x;
        auto release = [&](int slot) {
            if (n_ranks == 1) {
                if (lane == 0) mbarrier_arrive(smem_ptr(&empty[slot]));
            } else if (lane < n_ranks) {
                mbarrier_arrive_at(smem_ptr(&empty[slot]), lane);
            }
        };
        while (walk.next(segment)) {
#pragma unroll
            for (int i = 0; i < Tokens / 2; ++i) acc[i] = 0;
            int previous = 0;
            for (int c = segment.begin; c < segment.end; ++c) {
                mbarrier_wait(smem_ptr(&full[at.slot]), at.parity);
                const uint64_t a =
                    wgmma_descriptor(weights + at.slot * kTileBytes + warp / 4 * (kTileBytes / 2));
                const uint64_t b = wgmma_descriptor(tokens + at.slot * kTokenBytes);
                wgmma_fence();
#pragma unroll
                for (int k = 0; k < kChunk / 16; ++k) Wgmma<T, Tokens>::run(acc, a + 2 * k, b + 2 * k);
                wgmma_commit();
                wgmma_wait<1>();
                if (c > segment.begin) release(previous);
                previous = at.slot;
                at.advance(n_stages);
            }
            wgmma_wait<0>();
            release(previous);

            if (segment.publish) {
#pragma unroll
                for (int j = 0; j < Tokens / 8; ++j)
                    __stcg(mine + j * 256,
                           make_float4(acc[j * 4], acc[j * 4 + 1], acc[j * 4 + 2], acc[j * 4 + 3]));
                __threadfence();
                asm volatile("bar.sync 1, 256;" ::: "memory");
                if (threadIdx.x == 0)
                    asm volatile("st.release.gpu.global.s32 [%0], 1;" ::"l"(p.flags + blockIdx.x) : "memory");
                continue;
            }
            if (segment.collect) {
                if (threadIdx.x == 0) {
                    int* flag = p.flags + blockIdx.x - n_ranks;
                    int ready;
                    do
                        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];"
                                     : "=r"(ready)
                                     : "l"(flag)
                                     : "memory");
                    while (!ready);
                    *flag = 0;
                }
                asm volatile("bar.sync 1, 256;" ::: "memory");
                const float4* theirs = mine - (size_t)n_ranks * (Tokens / 8) * 256;
#pragma unroll
                for (int j = 0; j < Tokens / 8; ++j) {
                    const float4 v = __ldcg(theirs + j * 256);
                    acc[j * 4] = v.x + acc[j * 4];
                    acc[j * 4 + 1] = v.y + acc[j * 4 + 1];
                    acc[j * 4 + 2] = v.z + acc[j * 4 + 2];
                    acc[j * 4 + 3] = v.w + acc[j * 4 + 3];
                }
            }
            pdl_wait();
            const WideTile tile = wide_tile(segment.tile, n_groups, n_token_tiles, Tokens);
            const bool pairs = p.act == Act::silu_mul;
            const int units = pairs ? 2 : 4;  // per token in the 16 rows of this warp
            const int row = unit_row(p.act, lane % units);
            const UnitEpilogue<T> unit(p, tile.group * n_ranks + rank, warp * units + lane % units);
            float* turned = stage[warp];
#pragma unroll
            for (int j = 0; j < Tokens / 8; j += kStageTokens / 8) {
                const int token0 = tile.token0 + j * 8;
                if (token0 >= p.m) break;
                __syncwarp();
#pragma unroll
                for (int e = 0; e < kStageTokens / 2; ++e)
                    turned[(e / 4 * 8 + lane % 4 * 2 + e % 2) * kStageStride + lane / 4 + e % 4 / 2 * 8] =
                        acc[j * 4 + e];
                __syncwarp();
                for (int t = lane / units; t < kStageTokens && token0 + t < p.m; t += 32 / units) {
                    const float* sums = turned + t * kStageStride + row;
                    unit.finish(token0 + t, *reinterpret_cast<const float4*>(sums),
                                *reinterpret_cast<const float4*>(sums + (pairs ? 8 : 0)));
                }
            }
        }
    }
    __syncwarp();
    cluster_sync();  // nobody leaves while the other may still arrive at its barriers
}

}  // namespace rvllm::cuda
