// A row of logits cut into chunks, one per warp of its team: passes over it, and finding the element at
// which a running sum in token order passes a number.
#pragma once
#include <cstdint>

#include "sampling/state.h"
#include "sampling/team.cuh"
#include "sampling/weights.cuh"

namespace rvllm::cuda {

constexpr int kStride = 128;  // elements of one step of a warp

// How the tokens of a row that are touched get their values: bias, then penalties, unless they are banned.
struct Edits {
    const uint32_t* banned;      // a bit per token
    const uint32_t* counts;      // by token (kInPrompt)
    const int32_t* bias_tokens;  // ascending
    const float* bias;
    int32_t n_bias;
    float repetition, frequency, presence;
    bool penalized;

    __device__ __noinline__ float value(float x, int32_t token) const {
        if (banned[token / 32] >> token % 32 & 1) return kNothing;
        int32_t first = 0, end = n_bias;
        while (first < end) {
            const int32_t middle = (first + end) / 2;
            if (bias_tokens[middle] < token) {
                first = middle + 1;
            } else {
                end = middle;
            }
        }
        for (; first < n_bias && bias_tokens[first] == token; ++first) x += bias[first];
        if (!penalized) return x;
        const uint32_t known = counts[token], count = known & ~kInPrompt;
        if (known == 0) return x;
        const float repeated = x > 0 ? x / repetition : x * repetition;
        return count > 0 ? repeated - (frequency * static_cast<float>(count) + presence) : repeated;
    }
};

struct Row {
    const float* x;
    int32_t n;
    int32_t chunk;            // elements per chunk, a multiple of kStride
    bool vectors;             // x is aligned to 16 bytes
    const uint32_t* touched;  // null, or a bit per token: `edits` gives its value
    const Edits* edits;
    bool level;  // infinities share equally, as zeros among -inf do

    __device__ static Row of(const float* x, int32_t n, const Team& team) {
        const int32_t n_chunks = team.size * kTeamWarps;
        const int32_t chunk = ((n + n_chunks - 1) / n_chunks + kStride - 1) / kStride * kStride;
        return {x, n, chunk, reinterpret_cast<uintptr_t>(x) % 16 == 0, nullptr, nullptr, false};
    }
    __device__ int32_t chunk_of_warp(const Team& team) const {
        return team.rank * kTeamWarps + static_cast<int32_t>(threadIdx.x / 32);
    }
    __device__ int32_t begin(int32_t c) const { return min(n, c * chunk); }
    __device__ int32_t end(int32_t c) const { return min(n, (c + 1) * chunk); }
    // The part of this CTA.
    __device__ int32_t begin(const Team& team) const { return begin(team.rank * kTeamWarps); }
    __device__ int32_t end(const Team& team) const { return end((team.rank + 1) * kTeamWarps - 1); }

    __device__ __forceinline__ float at(int32_t i) const {
        const float v = touched && touched[i / 32] >> i % 32 & 1 ? edits->value(x[i], i) : x[i];
        return level ? leveled(v) : v;
    }
    __device__ static float leveled(float v) { return v == INFINITY ? 0.0f : kNothing; }
    // The logits of four tokens, -inf from `end` on.
    __device__ __forceinline__ float4 four(int32_t i, int32_t end) const {
        if (vectors && i + 4 <= end) return *reinterpret_cast<const float4*>(x + i);
        return make_float4(i < end ? x[i] : kNothing, i + 1 < end ? x[i + 1] : kNothing,
                           i + 2 < end ? x[i + 2] : kNothing, i + 3 < end ? x[i + 3] : kNothing);
    }
    // Puts edited values in place of them.
    __device__ __forceinline__ void edit(float4& v, int32_t i, int32_t end) const {
        if (i >= end) return;
        const uint32_t bits = touched[i / 32] >> i % 32 & 15;  // no bit is set from the row's end on
        if (bits == 0) return;
        if (bits & 1) v.x = edits->value(v.x, i);
        if (bits & 2) v.y = edits->value(v.y, i + 1);
        if (bits & 4) v.z = edits->value(v.z, i + 2);
        if (bits & 8) v.w = edits->value(v.w, i + 3);
    }
};

// f(four values, first token) over [begin, end) by one warp, kAhead loads of a thread in flight; its tokens
// ascend. What is beyond the end is -inf, of tokens that are not in the row.
template <int kAhead = 4, typename F>
__device__ __forceinline__ void each_four(const Row row, int32_t begin, int32_t end, const F& f) {
    for (int32_t start = begin; start < end; start += kAhead * kStride) {
        const int32_t i = start + 4 * static_cast<int32_t>(threadIdx.x % 32);
        float4 v[kAhead];
        if (row.vectors && start + kAhead * kStride <= end) {
#pragma unroll
            for (int u = 0; u < kAhead; ++u) v[u] = *reinterpret_cast<const float4*>(row.x + i + u * kStride);
        } else {
#pragma unroll
            for (int u = 0; u < kAhead; ++u) v[u] = row.four(i + u * kStride, end);
        }
        if (row.touched) {
#pragma unroll
            for (int u = 0; u < kAhead; ++u) row.edit(v[u], i + u * kStride, end);
        }
        if (row.level) {
#pragma unroll
            for (int u = 0; u < kAhead; ++u) {
                v[u] = make_float4(Row::leveled(v[u].x), Row::leveled(v[u].y), Row::leveled(v[u].z),
                                   Row::leveled(v[u].w));
            }
        }
#pragma unroll
        for (int u = 0; u < kAhead; ++u) f(v[u], i + u * kStride < end ? i + u * kStride : kEveryToken - 3);
    }
}

// f(value, token) over [begin, end) by one warp; beyond the end as above.
template <typename F>
__device__ __forceinline__ void each(const Row row, int32_t begin, int32_t end, const F& f) {
    each_four(row, begin, end, [&](const float4& v, int32_t i) {
        f(v.x, i);
        f(v.y, i + 1);
        f(v.z, i + 2);
        f(v.w, i + 3);
    });
}

// Scratch of find_passing().
struct Finding {
    uint64_t warp_sums[kTeamWarps];
    uint64_t rest;
    int32_t begin, end;
    int32_t token;
};

// The first token of chunk c at which the running sum of weight(value, token) exceeds `at`, by one CTA. The
// chunk's sum must exceed it.
template <typename F>
__device__ int32_t find_passing(const Row row, int32_t c, uint64_t at, Finding& s, const F& weight) {
    const int32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int32_t begin = row.begin(c), end = row.end(c);
    const int32_t part = ((end - begin + kTeamWarps - 1) / kTeamWarps + 31) / 32 * 32;
    const int32_t first = min(end, begin + warp * part), last = min(end, first + part);
    uint64_t sum = 0;
    for (int32_t i = first + lane; i < last; i += 32) sum += weight(row.at(i), i);
    sum = warp_total(sum);
    __syncthreads();
    if (lane == 0) s.warp_sums[warp] = sum;
    __syncthreads();
    uint64_t before = 0;
    for (int32_t w = 0; w < warp; ++w) before += s.warp_sums[w];
    if (lane == 0 && at >= before && at < before + sum) {
        s.begin = first;
        s.end = last;
        s.rest = at - before;
    }
    __syncthreads();
    if (warp == 0) {
        uint64_t rest = s.rest;
        const int32_t stop = s.end;
        for (int32_t start = s.begin; start < stop; start += 32) {
            const int32_t i = start + lane;
            const uint64_t w = i < stop ? weight(row.at(i), i) : 0;
            const uint64_t upto = warp_scan(w);
            const uint32_t passed = __ballot_sync(kAllLanes, upto > rest);
            if (passed) {
                if (lane == 0) s.token = start + __ffs(static_cast<int>(passed)) - 1;
                break;
            }
            rest -= __shfl_sync(kAllLanes, upto, 31);
        }
    }
    __syncthreads();
    return s.token;
}

}  // namespace rvllm::cuda
