// How long L2 is to keep what a copy reads (sm_80; before, nothing is asked for).
#pragma once
#include <cstdint>

namespace rvllm::cuda {

// L2 policy for data that is read once per step. On an H200 tiles stream with it at 4.6 TB/s, with 4 or 12 of
// them in flight per CTA; evicted normally, at 4.35 and 3.87. Prefetching them to L2 does not pay: from there
// they come at 4.45, unless the same CTA or its neighbour has loaded them before (7.3).
__device__ __forceinline__ uint64_t policy_evict_first() {
    uint64_t policy = 0;
#if __CUDA_ARCH__ >= 800
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
    return policy;
}

__device__ __forceinline__ uint64_t policy_evict_normal() {
    uint64_t policy = 0;
#if __CUDA_ARCH__ >= 800
    asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
#endif
    return policy;
}

}  // namespace rvllm::cuda
