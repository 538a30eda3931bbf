// linear_wide_kernel (sm_90a): y = x @ weight^T when there are more tiles than multiprocessors.
//
// Persistent CTAs take tiles of 128 weight rows and Tokens tokens. Whole rounds of tiles come first in an
// order that reuses L2; the rest, one to two tiles per CTA, is cut evenly along K (stream-K). A tile cut in
// two is begun by the CTA that does it before all else, which leaves its sums in the workspace, and finished
// by the next CTA, which goes on from them after all else: nobody waits in practice. The cuts depend on N, K,
// the number of token tiles and the chip only. Warp roles are those of split.cuh.
#pragma once
#include "device/bulk.cuh"
#include "device/mbarrier.cuh"
#include "device/pdl.cuh"
#include "gemm/epilogue.cuh"
#include "gemm/tile_math.cuh"

namespace rvllm::cuda {

constexpr int kWideThreads = 288;
constexpr int kWideMaxStages = 12;
constexpr int kWideMaxSmemBytes = 214 * 1024;
constexpr int kStageStride = 20;   // floats between tokens where a warp turns its 16 rows around
constexpr int kBandTokens = 2048;  // tokens whose tiles run side by side

inline int wide_smem_bytes(int tokens, int n_stages) {
    return 1024 + n_stages * (kTileBytes + tokens * 128);
}

// The part of one tile that a CTA computes: chunks [begin, end) of `tile`.
struct WideSegment {
    int tile, begin, end;
    bool publish;  // leaves its sums to the next CTA
    bool collect;  // goes on from the sums of the previous CTA
};

// The segments of one CTA, in order.
class WideSchedule {
public:
    __device__ __forceinline__ WideSchedule(int n_tiles, int chunks)
        : chunks_(chunks), cta_(blockIdx.x), n_ctas_(gridDim.x) {
        const int rest = n_tiles % n_ctas_;
        n_rounds_ = n_tiles / n_ctas_ - (rest != 0);
        first_ = n_rounds_ * n_ctas_;
        const int64_t units = rest ? (int64_t)(rest + n_ctas_) * chunks : 0;
        begin_ = (int)(units * cta_ / n_ctas_);
        end_ = (int)(units * (cta_ + 1) / n_ctas_);
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
            s.tile = step_++ * n_ctas_ + cta_;
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
    int chunks_, cta_, n_ctas_, n_rounds_, first_, begin_, end_, step_;
    int64_t next_;
};

struct WideTile {
    int block, token0;  // of 128 weight rows; first token
};

// Tiles of neighbouring indices share weights, then tokens.
__device__ __forceinline__ WideTile wide_tile(int tile, int n_blocks, int n_token_tiles, int tokens) {
    const int band = kBandTokens / tokens, in_band = band * n_blocks;
    const int b = tile / in_band, r = tile % in_band, width = min(band, n_token_tiles - b * band);
    return {r / width, (b * band + r % width) * tokens};
}

// Walks through the loads of a CTA, chunk by chunk. One thread issues them all: everything that is
// not an addition happens once per segment, or that thread becomes the bottleneck.
class WideCursor {
public:
    __device__ __forceinline__ WideCursor(const WideSchedule& schedule, const LinearParams& p, int n_blocks,
                                          int n_token_tiles, int tokens)
        : schedule_(schedule), p_(p), n_blocks_(n_blocks), n_token_tiles_(n_token_tiles), tokens_(tokens) {
        open();
    }

    __device__ __forceinline__ void advance() {
        weight += kTileBytes;
        column += kChunk;
        if (--left_ == 0) open();
    }

    const uint8_t* weight;   // tile of this CTA's row block
    int column, token, row;  // of the tile of tokens, of the row block

private:
    __device__ __forceinline__ void open() {
        WideSegment s;
        if (!schedule_.next(s)) return;
        const WideTile tile = wide_tile(s.tile, n_blocks_, n_token_tiles_, tokens_);
        weight = p_.weight + ((size_t)tile.block * k_chunks(p_.k) + s.begin) * kTileBytes;
        column = s.begin * kChunk;
        row = tile.block * kBlockRows;
        token = tile.token0;
        left_ = s.end - s.begin;
    }

    WideSchedule schedule_;
    const LinearParams& p_;
    int n_blocks_, n_token_tiles_, tokens_, left_;
};

template <typename T, int Tokens>
__global__ void __launch_bounds__(kWideThreads, 1)
    linear_wide_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                       const __grid_constant__ LinearParams p) {
    constexpr uint32_t kTokenBytes = Tokens * 128;
    // A warp turns its sums around in shared memory, 16 rows and so many tokens at a time.
    constexpr int kStageTokens = Tokens < 16 ? 8 : 16;
    extern __shared__ uint8_t smem_raw[];
    __shared__ __align__(8) uint64_t full[kWideMaxStages], empty[kWideMaxStages];
    __shared__ __align__(16) float stage[8][kStageTokens * kStageStride];

    const uint32_t base = (smem_ptr(smem_raw) + 1023) & ~1023u;
    const int n_stages = p.n_stages, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t weights = base, tokens = base + n_stages * kTileBytes;
    const int chunks = (int)k_chunks(p.k), n_blocks = (int)row_blocks(p.n);
    const int n_token_tiles = (p.m + Tokens - 1) / Tokens;
    const WideSchedule schedule(n_blocks * n_token_tiles, chunks);

    if (threadIdx.x == 0) {
        for (int s = 0; s < n_stages; ++s) {
            mbarrier_init(smem_ptr(&full[s]), 1);
            mbarrier_init(smem_ptr(&empty[s]), 8);
        }
        mbarrier_init_fence();
    }
    __syncthreads();

    if (warp == 8) {
        if (lane == 0) {
            const uint64_t policy = policy_evict_first();
            const uint32_t full0 = smem_ptr(full), empty0 = smem_ptr(empty);
            auto load_weights = [&](int slot, const WideCursor& c) {
                const uint32_t dst = weights + slot * kTileBytes, bar = full0 + slot * 8;
                mbarrier_expect(bar, kTileBytes + kTokenBytes);
                if (p.rows) {
                    tensor_load(dst, &w_map, c.column, c.row, bar, policy);
                } else {
                    bulk_load(dst, c.weight, kTileBytes, bar, policy);
                }
            };
            auto load_tokens = [&](int slot, const WideCursor& c) {
                tensor_load(tokens + slot * kTokenBytes, &x_map, c.column, c.token, full0 + slot * 8);
            };
            const int total = schedule.total_chunks(), ahead = min(total, n_stages);
            WideCursor cursor(schedule, p, n_blocks, n_token_tiles, Tokens), behind = cursor;
            for (int i = 0; i < ahead; ++i, cursor.advance()) load_weights(i, cursor);
            if (p.trigger >= total - ahead) pdl_launch_dependents();
            prefetch_map(&x_map);
            pdl_wait();
            for (int i = 0; i < ahead; ++i, behind.advance()) load_tokens(i, behind);
            RingPosition at;
            for (int left = total - ahead; left > 0; --left, cursor.advance(), at.advance(n_stages)) {
                mbarrier_wait(empty0 + at.slot * 8, at.parity);
                load_weights(at.slot, cursor);
                load_tokens(at.slot, cursor);
                if (left == p.trigger + 1) pdl_launch_dependents();
            }
        }
    } else {
        using Math = TileMath<T, Tokens>;
        Math math(weights, tokens);
        RingPosition at;
        WideSchedule walk = schedule;
        WideSegment segment;
        float4* mine =
            static_cast<float4*>(p.workspace) + (size_t)blockIdx.x * (Tokens / 8) * 256 + threadIdx.x;
        auto release = [&](int slot) {
            if (lane == 0) mbarrier_arrive(smem_ptr(&empty[slot]));
        };
        while (walk.next(segment)) {
            auto& acc = math.acc;
            math.clear();
            if (segment.collect) {
                if (threadIdx.x == 0) {
                    int* flag = p.flags + blockIdx.x - 1;
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
                const float4* theirs = mine - (Tokens / 8) * 256;
#pragma unroll
                for (int i = 0; i < Tokens / 8; ++i) {
                    const float4 u = __ldcg(theirs + i * 256);
                    float* v = &acc[i / (Math::kN / 8)][i % (Math::kN / 8) * 4];
                    v[0] = u.x;
                    v[1] = u.y;
                    v[2] = u.z;
                    v[3] = u.w;
                }
            }
            math.run(segment.end - segment.begin, smem_ptr(full), n_stages, at, release);

            if (segment.publish) {
#pragma unroll
                for (int i = 0; i < Tokens / 8; ++i) {
                    const float* v = &acc[i / (Math::kN / 8)][i % (Math::kN / 8) * 4];
                    __stcg(mine + i * 256, make_float4(v[0], v[1], v[2], v[3]));
                }
                __threadfence();
                asm volatile("bar.sync 1, 256;" ::: "memory");
                if (threadIdx.x == 0)
                    asm volatile("st.release.gpu.global.s32 [%0], 1;" ::"l"(p.flags + blockIdx.x) : "memory");
                continue;
            }
            pdl_wait();
            const WideTile tile = wide_tile(segment.tile, n_blocks, n_token_tiles, Tokens);
            const bool pairs = p.act == Act::silu_mul;
            const int units = pairs ? 2 : 4;  // per token in the 16 rows of this warp
            const int row = unit_row(p.act, lane % units);
            float* turned = stage[warp];
#pragma unroll
            for (int r = 0; r < Math::kRowTiles; ++r) {
                const UnitEpilogue<T> unit(p, tile.block, math.row(r) / 16 * units + lane % units);
#pragma unroll
                for (int j = 0; j < Math::kN / 8; j += kStageTokens / 8) {
                    const int token0 = tile.token0 + math.token(j) - lane % 4 * 2;
                    if (token0 >= p.m) break;
                    __syncwarp();
#pragma unroll
                    for (int e = 0; e < kStageTokens / 2; ++e)
                        turned[(e / 4 * 8 + lane % 4 * 2 + e % 2) * kStageStride + lane / 4 + e % 4 / 2 * 8] =
                            acc[r][j * 4 + e];
                    __syncwarp();
                    for (int t = lane / units; t < kStageTokens && token0 + t < p.m; t += 32 / units) {
                        const float* sums = turned + t * kStageStride + row;
                        unit.finish(token0 + t, *reinterpret_cast<const float4*>(sums),
                                    *reinterpret_cast<const float4*>(sums + (pairs ? 8 : 0)));
                    }
                }
            }
        }
    }
}

}  // namespace rvllm::cuda
