// What ends a decode item: the CTA's warps are merged; splits of a sequence are added up, in their order, by
// the CTA that finishes the last one.
#pragma once
#include "attention/attention.h"
#include "attention/params.h"
#include "attention/softmax.cuh"

namespace rvllm::cuda {

static_assert(kMaxSplits % 32 == 0, "combine_splits() gives each lane whole rounds of splits");

// The threads of the warps that compute; others of the CTA go on.
__device__ __forceinline__ void decode_sync() {
    asm volatile("bar.sync 1, %0;" ::"n"(32 * kDecodeWarps) : "memory");
}

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

// Adds up the splits of one sequence for `n_rows` heads from `head` on. `weights`: [n_rows][kMaxSplits] of
// shared memory.
template <typename T, int D>
__device__ __forceinline__ void combine_splits(const AttentionParams& p, const DecodeItem& item, int head,
                                               int n_rows, float* weights) {
    const AttentionWork& w = p.work;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t first = (int64_t)item.partial * p.n_heads + head;
    for (int row = warp; row < n_rows; row += kDecodeWarps) {
        float2 stats[kMaxSplits / 32];
        float top = -INFINITY, sum = 0;
#pragma unroll
        for (int i = 0; i < kMaxSplits / 32; ++i) {
            const int split = lane + 32 * i;
            stats[i] = make_float2(-INFINITY, 0);
            if (split < item.n_splits) {
                const int64_t at = first + (int64_t)split * p.n_heads + row;
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
            weights[row * kMaxSplits + lane + 32 * i] = exp2_fast(stats[i].x - top) / sum;
        }
    }
    decode_sync();
    T* y = static_cast<T*>(p.y) + item.token * p.y_stride + (int64_t)head * D;
    for (int e = threadIdx.x; e < n_rows * (D / 4); e += 32 * kDecodeWarps) {
        const int row = e / (D / 4), d = e % (D / 4) * 4;
        const float* from = w.partial_out + (first + row) * D + d;
        float4 out = make_float4(0, 0, 0, 0);
#pragma unroll 8
        for (int i = 0; i < item.n_splits; ++i) {
            const float4 v = __ldcg(reinterpret_cast<const float4*>(from + (int64_t)i * p.n_heads * D));
            const float weight = weights[row * kMaxSplits + i];
            out.x += weight * v.x;
            out.y += weight * v.y;
            out.z += weight * v.z;
            out.w += weight * v.w;
        }
        store4<T>(y + row * D + d, out);
    }
}

// Merges the warps' outputs (accumulators of 16 heads) and their softmax for the `n_rows` heads from `head`
// on, and writes them, or the sequence's when this was its last split. `merged`: decode_merge_bytes(), free
// on entry and on return. unit: of heads, among the step's.
template <typename T, int D>
__device__ __forceinline__ void finish_item(const AttentionParams& p, const DecodeItem& item, int unit,
                                            int n_units, int head, int n_rows, const float (&out)[D / 8][4],
                                            const SoftmaxRows& rows, float* merged, bool* is_last) {
    constexpr int kStride = D + kMergePad;
    const AttentionWork& w = p.work;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int tile_rows = (n_rows + 7) / 8 * 8;
    float2* stats = reinterpret_cast<float2*>(merged + kDecodeWarps * tile_rows * kStride);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        if (8 * h >= tile_rows) break;
        const int row = warp * tile_rows + lane / 4 + 8 * h;
        const float sum = quad_sum(rows.sum[h]);
        if (lane % 4 == 0) stats[row] = make_float2(rows.max[h], sum);
#pragma unroll
        for (int t = 0; t < D / 8; ++t) {
            *reinterpret_cast<float2*>(merged + row * kStride + t * 8 + lane % 4 * 2) =
                make_float2(out[t][2 * h], out[t][2 * h + 1]);
        }
    }
    decode_sync();
    const int64_t partial = (int64_t)(item.partial + item.split) * p.n_heads + head;
    T* y = static_cast<T*>(p.y) + item.token * p.y_stride + (int64_t)head * D;
    for (int e = threadIdx.x; e < n_rows * (D / 4); e += 32 * kDecodeWarps) {
        const int row = e / (D / 4), d = e % (D / 4) * 4;
        float2 of[kDecodeWarps];
        float top = -INFINITY, sum = 0;
        float4 value = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int i = 0; i < kDecodeWarps; ++i) {
            of[i] = stats[i * tile_rows + row];
            top = fmaxf(top, of[i].x);
        }
#pragma unroll
        for (int i = 0; i < kDecodeWarps; ++i) {
            const float weight = exp2_fast(of[i].x - top);
            const float4 v = *reinterpret_cast<const float4*>(merged + (i * tile_rows + row) * kStride + d);
            sum += weight * of[i].y;
            value.x += weight * v.x;
            value.y += weight * v.y;
            value.z += weight * v.z;
            value.w += weight * v.w;
        }
        if (item.n_splits == 1) {
            const float inverse = 1.0f / sum;
            store4<T>(y + row * D + d, make_float4(value.x * inverse, value.y * inverse, value.z * inverse,
                                                   value.w * inverse));
        } else {
            *reinterpret_cast<float4*>(w.partial_out + (partial + row) * D + d) = value;
            if (d == 0)
                *reinterpret_cast<float2*>(w.partial_stats + 2 * (partial + row)) = make_float2(top, sum);
        }
    }
    if (item.n_splits > 1) {
        __threadfence();
        decode_sync();
        if (threadIdx.x == 0) {
            uint32_t* arrived = w.arrived + item.seq * n_units + unit;
            *is_last = atomicAdd(arrived, 1) == item.n_splits - 1;
            if (*is_last) *arrived = 0;
        }
        decode_sync();
        if (*is_last) {
            __threadfence();
            combine_splits<T, D>(p, item, head, n_rows, merged);
        }
    }
    decode_sync();
}

}  // namespace rvllm::cuda
