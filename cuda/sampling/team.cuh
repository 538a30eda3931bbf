// The CTAs that share one row of logits: a cluster on sm_90 and later, one CTA before.
#pragma once
#include <cstdint>

#include "device/cluster.cuh"

namespace rvllm::cuda {

constexpr int kTeamThreads = 512;  // of a CTA
constexpr int kTeamWarps = kTeamThreads / 32;
constexpr int kMaxTeam = 8;  // CTAs
constexpr int kMaxChunks = kMaxTeam * kTeamWarps;
constexpr uint32_t kAllLanes = 0xffffffffu;

struct Team {
    int rank, size;

    __device__ static Team mine() {
#if __CUDA_ARCH__ >= 900
        return {static_cast<int>(cluster_rank()), static_cast<int>(cluster_size())};
#else
        return {0, 1};
#endif
    }

    // All threads meet; what they wrote, to shared or global memory, is visible to all after.
    __device__ void sync() const {
#if __CUDA_ARCH__ >= 900
        if (size > 1) {
            cluster_sync();
            return;
        }
#endif
        __syncthreads();
    }

    // The shared variable of another CTA that is `p` in this one.
    template <typename T>
    __device__ T* of(T* p, int other) const {
#if __CUDA_ARCH__ >= 900
        if (size > 1) return cluster_map(p, static_cast<uint32_t>(other));
#endif
        return p;
    }
};

template <typename T>
__device__ __forceinline__ T warp_total(T x) {
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) x += __shfl_xor_sync(kAllLanes, x, i);
    return x;
}
template <typename T>
__device__ __forceinline__ T warp_least(T x) {
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) {
        const T y = __shfl_xor_sync(kAllLanes, x, i);
        x = y < x ? y : x;
    }
    return x;
}
// Sum over this and all lanes before.
template <typename T>
__device__ __forceinline__ T warp_scan(T x) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 1; i < 32; i <<= 1) {
        const T y = __shfl_up_sync(kAllLanes, x, i);
        if (lane >= i) x += y;
    }
    return x;
}

// Sum over all threads of this CTA before this one. `warp_sums`: kTeamWarps values of scratch.
template <typename T>
__device__ T block_scan(T x, T* warp_sums) {
    const T upto = warp_scan(x);
    __syncthreads();
    if (threadIdx.x % 32 == 31) warp_sums[threadIdx.x / 32] = upto;
    __syncthreads();
    T before = upto - x;
    for (int w = 0; w < static_cast<int>(threadIdx.x / 32); ++w) before += warp_sums[w];
    return before;
}

// Sum over all threads of this CTA, in each.
template <typename T>
__device__ T block_total(T x, T* warp_sums) {
    x = warp_total(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = x;
    __syncthreads();
    T sum = 0;
    for (int w = 0; w < kTeamWarps; ++w) sum += warp_sums[w];
    return sum;
}

}  // namespace rvllm::cuda
