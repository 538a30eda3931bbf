// A row of logits cut into chunks, one per warp of its team: passes over it, and finding the element at
// which a running sum in token order passes a number.
#pragma once
#include <cstdint>

#include "sampling/team.cuh"
#include "sampling/weights.cuh"

namespace rvllm::cuda {

constexpr int kStride = 128;  // elements of one step of a warp

struct Row {
    const float* x;
    int32_t n;
    int32_t chunk;  // elements per chunk, a multiple of kStride
    bool vectors;   // x is aligned to 16 bytes

    __device__ static Row of(const float* x, int32_t n, const Team& team) {
        const int32_t n_chunks = team.size * kTeamWarps;
        const int32_t chunk = ((n + n_chunks - 1) / n_chunks + kStride - 1) / kStride * kStride;
        return {x, n, chunk, reinterpret_cast<uintptr_t>(x) % 16 == 0};
    }
    __device__ int32_t chunk_of_warp(const Team& team) const {
        return team.rank * kTeamWarps + static_cast<int32_t>(threadIdx.x / 32);
    }
    __device__ int32_t begin(int32_t c) const { return min(n, c * chunk); }
    __device__ int32_t end(int32_t c) const { return min(n, (c + 1) * chunk); }
};

// f(four values, first token, how many of them) over [begin, end) by one warp; a thread's tokens ascend.
// Values beyond the count are -inf.
template <typename F>
__device__ __forceinline__ void each_four(const Row& row, int32_t begin, int32_t end, const F& f) {
    const int32_t lane = threadIdx.x % 32;
    if (!row.vectors) {
        for (int32_t i = begin + lane; i < end; i += 32) {
            f(make_float4(row.x[i], kNothing, kNothing, kNothing), i, 1);
        }
        return;
    }
    int32_t i = begin + 4 * lane;
    for (; i + 3 * kStride + 4 <= end; i += 4 * kStride) {
        float4 v[4];
#pragma unroll
        for (int u = 0; u < 4; ++u) v[u] = *reinterpret_cast<const float4*>(row.x + i + u * kStride);
#pragma unroll
        for (int u = 0; u < 4; ++u) f(v[u], i + u * kStride, 4);
    }
    for (; i + 4 <= end; i += kStride) f(*reinterpret_cast<const float4*>(row.x + i), i, 4);
    if (i < end) {
        float v[4] = {kNothing, kNothing, kNothing, kNothing};
        for (int j = 0; j < end - i; ++j) v[j] = row.x[i + j];
        f(make_float4(v[0], v[1], v[2], v[3]), i, end - i);
    }
}

// f(value, token) over a chunk by one warp.
template <typename F>
__device__ __forceinline__ void each(const Row& row, int32_t begin, int32_t end, const F& f) {
    each_four(row, begin, end, [&](const float4& v, int32_t i, int n) {
        f(v.x, i);
        if (n > 1) f(v.y, i + 1);
        if (n > 2) f(v.z, i + 2);
        if (n > 3) f(v.w, i + 3);
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
__device__ int32_t find_passing(const Row& row, int32_t c, uint64_t at, Finding& s, const F& weight) {
    const int32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int32_t begin = row.begin(c), end = row.end(c);
    const int32_t part = ((end - begin + kTeamWarps - 1) / kTeamWarps + 31) / 32 * 32;
    const int32_t first = min(end, begin + warp * part), last = min(end, first + part);
    uint64_t sum = 0;
    for (int32_t i = first + lane; i < last; i += 32) sum += weight(row.x[i], i);
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
            const uint64_t w = i < stop ? weight(row.x[i], i) : 0;
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
