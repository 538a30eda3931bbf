// What ends a decode item: the team's warps are merged; splits of a sequence are added up, in their order, by
// the team that finishes the last one.
#pragma once
#include "attention/attention.h"
#include "attention/params.h"
#include "attention/softmax.cuh"

namespace rvllm::cuda {

static_assert(kMaxSplits % 32 == 0, "combine_splits() gives each lane whole rounds of splits");

__device__ __forceinline__ DecodeItem load_item(const AttentionWork& w, int i) {
    union {
        int4 v[2];
        DecodeItem item;
    } u;
    const int4* from = reinterpret_cast<const int4*>(w.decode + i);
    u.v[0] = __ldcg(from);
    u.v[1] = __ldcg(from + 1);
    return u.item;
}

// The item of a pair, or one that is there.
__device__ __forceinline__ int item_of(const AttentionParams& p, int work) {
    return min((int)p.units.quotient(work), p.work.max_decode - 1);
}

// What a pair's number among those of the step says: its split, and its tile of heads.
struct DecodePair {
    int item, unit, kv_head, tile;

    __device__ __forceinline__ DecodePair(const AttentionParams& p, int work)
        : item(p.units.quotient(work)),
          unit(work - item * p.units.n),
          kv_head(p.head_tiles.quotient(unit)),
          tile(unit - kv_head * p.head_tiles.n) {}
};

// The warps that share pairs: all of a CTA, two, or each for itself, as the step's header says.
struct DecodeTeam {
    int n_work;  // pairs of the step
    int n_warps, log_warps, rank, first_warp;
    int id, n_teams;  // among those of the grid

    __device__ __forceinline__ explicit DecodeTeam(const AttentionParams& p) {
        const int warp = threadIdx.x / 32;
        n_work = __ldcg(p.work.header) * p.units.n;  // staged long before the preceding kernel
        log_warps = p.work.log_warps;
        if (log_warps < 0) log_warps = __ldcg(p.work.header + 1);
        n_warps = 1 << log_warps;
        rank = warp & (n_warps - 1);
        first_warp = warp - rank;
        id = blockIdx.x + gridDim.x * (warp >> log_warps);
        n_teams = gridDim.x * (kDecodeWarps >> log_warps);
    }

    __device__ __forceinline__ int thread() const { return rank * 32 + threadIdx.x % 32; }
    __device__ __forceinline__ void sync() const {
        asm volatile("bar.sync %0, %1;" ::"r"(1 + first_warp), "r"(n_warps * 32) : "memory");
    }
};

// The pairs of a team, one after the other: there and back over the teams, because the longest come first.
struct DecodeTurn {
    int work, step, steps;  // the pair, how far the next one is, that and the one behind

    __device__ __forceinline__ explicit DecodeTurn(const DecodeTeam& team)
        : work(team.id), step(2 * (team.n_teams - team.id) - 1), steps(2 * team.n_teams) {}
    __device__ __forceinline__ DecodeTurn next() const {
        DecodeTurn n = *this;
        n.work += step;
        n.step = steps - step;
        return n;
    }
};

// What the warps of a team tell each other.
struct DecodeMerge {
    uint32_t at[kDecodeWarps];   // of shared memory: where a warp put its accumulators
    bool is_last[kDecodeWarps];  // of a team's first warp: this was the sequence's last split
};

// Adds up the splits of one sequence for `n_heads` heads from `head` on. `weights`: [n_heads][kMaxSplits] of
// shared memory.
template <typename T, int D>
__device__ __forceinline__ void combine_splits(const AttentionParams& p, const DecodeTeam& team,
                                               const DecodeItem& item, int head, int n_heads,
                                               float* weights) {
    const AttentionWork& w = p.work;
    const int lane = threadIdx.x % 32;
    const int64_t first = (int64_t)item.partial * p.n_heads + head;
    for (int h = team.rank; h < n_heads; h += team.n_warps) {
        float2 stats[kMaxSplits / 32];
        float top = -INFINITY, sum = 0;
#pragma unroll
        for (int i = 0; i < kMaxSplits / 32; ++i) {
            const int split = lane + 32 * i;
            stats[i] = make_float2(-INFINITY, 0);
            if (split < item.n_splits) {
                const int64_t at = first + (int64_t)split * p.n_heads + h;
                stats[i] = __ldcg(reinterpret_cast<const float2*>(w.partial_stats) + at);
            }
            top = fmaxf(top, stats[i].x);
        }
        top = warp_max(top);
#pragma unroll
        for (int i = 0; i < kMaxSplits / 32; ++i) sum += exp2_fast(stats[i].x - top) * stats[i].y;
        sum = warp_sum(sum);
#pragma unroll
        for (int i = 0; i < kMaxSplits / 32; ++i) {
            weights[h * kMaxSplits + lane + 32 * i] = exp2_fast(stats[i].x - top) / sum;
        }
    }
    team.sync();
    T* y = static_cast<T*>(p.y) + item.token * p.y_stride + (int64_t)head * D;
    for (int e = team.thread(); e < n_heads * (D / 4); e += 32 * team.n_warps) {
        const int h = e / (D / 4), d = e % (D / 4) * 4;
        const float* from = w.partial_out + (first + h) * D + d;
        float4 out = make_float4(0, 0, 0, 0);
#pragma unroll 8
        for (int i = 0; i < item.n_splits; ++i) {
            const float4 v = __ldcg(reinterpret_cast<const float4*>(from + (int64_t)i * p.n_heads * D));
            const float weight = weights[h * kMaxSplits + i];
            out.x += weight * v.x;
            out.y += weight * v.y;
            out.z += weight * v.z;
            out.w += weight * v.w;
        }
        store4<T>(y + h * D + d, out);
    }
}

// Merges the warps' outputs^T (accumulators of D by Heads) and their softmax, and writes them, or the
// sequence's when this was its last split. `at`: decode_merge_bytes() of `smem` that are free for this warp.
template <typename T, int D, int Heads>
__device__ __forceinline__ void finish_item(const AttentionParams& p, const DecodeTeam& team,
                                            const DecodeItem& item, const DecodePair& pair,
                                            const float (&out)[Heads / 8][D / 16][4],
                                            const float (&top)[Heads / 8][2],
                                            const float (&sum)[Heads / 8][2], uint8_t* smem, uint32_t at,
                                            DecodeMerge* merge) {
    constexpr int kStride = D + kMergePad;
    const AttentionWork& w = p.work;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int head = pair.kv_head * p.group_size + pair.tile * Heads;
    const int n_heads = min(Heads, p.group_size - pair.tile * Heads);
    float* mine = reinterpret_cast<float*>(smem + at);
    if (lane == 0) merge->at[warp] = at;
#pragma unroll
    for (int t = 0; t < Heads / 8; ++t) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            const int h = t * 8 + lane % 4 * 2 + c;
            const float total = column_sum(sum[t][c]);
            if (lane < 4)
                reinterpret_cast<float2*>(mine + Heads * kStride)[h] = make_float2(top[t][c], total);
#pragma unroll
            for (int d = 0; d < D / 16; ++d) {
                mine[h * kStride + d * 16 + lane / 4] = out[t][d][c];
                mine[h * kStride + d * 16 + lane / 4 + 8] = out[t][d][2 + c];
            }
        }
    }
    team.sync();
    const int64_t partial = (int64_t)(item.partial + item.split) * p.n_heads + head;
    T* y = static_cast<T*>(p.y) + item.token * p.y_stride + (int64_t)head * D;
    const float* from[kDecodeWarps];
#pragma unroll
    for (int i = 0; i < kDecodeWarps; ++i)
        from[i] =
            reinterpret_cast<const float*>(smem + merge->at[team.first_warp + (i & (team.n_warps - 1))]);
#pragma unroll 1
    for (int e = team.thread(); e < n_heads * (D / 4); e += 32 * team.n_warps) {
        const int h = e / (D / 4), d = e % (D / 4) * 4;
        float2 stats[kDecodeWarps];
        float most = -INFINITY, total = 0;
        float4 value = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int i = 0; i < kDecodeWarps; ++i) {
            stats[i] = reinterpret_cast<const float2*>(from[i] + Heads * kStride)[h];
            most = fmaxf(most, stats[i].x);
        }
#pragma unroll
        for (int i = 0; i < kDecodeWarps; ++i) {
            if (i >= team.n_warps) break;
            const float weight = exp2_fast(stats[i].x - most);
            const float4 v = *reinterpret_cast<const float4*>(from[i] + h * kStride + d);
            total += weight * stats[i].y;
            value.x += weight * v.x;
            value.y += weight * v.y;
            value.z += weight * v.z;
            value.w += weight * v.w;
        }
        if (item.n_splits == 1) {
            const float inverse = 1.0f / total;
            store4<T>(y + h * D + d, make_float4(value.x * inverse, value.y * inverse, value.z * inverse,
                                                 value.w * inverse));
        } else {
            *reinterpret_cast<float4*>(w.partial_out + (partial + h) * D + d) = value;
            if (d == 0)
                *reinterpret_cast<float2*>(w.partial_stats + 2 * (partial + h)) = make_float2(most, total);
        }
    }
    team.sync();
    if (item.n_splits == 1) return;
    if (team.thread() == 0) {
        uint32_t* arrived = w.arrived + item.seq * p.units.n + pair.unit;
        __threadfence();
        const bool is_last = atomicAdd(arrived, 1) == item.n_splits - 1;
        merge->is_last[team.first_warp] = is_last;
        if (is_last) *arrived = 0;
        __threadfence();
    }
    team.sync();
    if (merge->is_last[team.first_warp]) {
        combine_splits<T, D>(p, team, item, head, n_heads,
                             reinterpret_cast<float*>(smem + merge->at[team.first_warp]));
        team.sync();
    }
}

}  // namespace rvllm::cuda
