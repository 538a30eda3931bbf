// Copies of 16 bytes from global to shared memory, asynchronous from sm_80 on.
#pragma once
#include <cstdint>

namespace rvllm::cuda {

// Copies 16 bytes, or writes zeros.
__device__ __forceinline__ void copy16_async(uint32_t dst, const void* src, bool valid) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(valid ? 16 : 0)
                 : "memory");
#else
    uint4 v = make_uint4(0, 0, 0, 0);
    if (valid) v = __ldcg(static_cast<const uint4*>(src));
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(dst), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
#endif
}

// The same with a policy (l2_policy.cuh).
__device__ __forceinline__ void copy16_async(uint32_t dst, const void* src, bool valid, uint64_t policy) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(dst), "l"(src),
                 "r"(valid ? 16 : 0), "l"(policy)
                 : "memory");
#else
    copy16_async(dst, src, valid);
#endif
}

__device__ __forceinline__ void copy_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most Pending committed groups are still on their way.
template <int Pending>
__device__ __forceinline__ void copy_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

}  // namespace rvllm::cuda
