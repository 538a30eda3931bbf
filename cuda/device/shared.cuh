// Addresses in shared memory.
#pragma once
#include <cstdint>

namespace rvllm::cuda {

// Shared-memory address as the instructions want it.
__device__ __forceinline__ uint32_t smem_ptr(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ float4 shared_load4(uint32_t address) {
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(address));
    return v;
}

}  // namespace rvllm::cuda
