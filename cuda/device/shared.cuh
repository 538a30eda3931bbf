// Addresses in shared memory.
#pragma once
#include <cstdint>

namespace rvllm::cuda {

// Shared-memory address as the instructions want it.
__device__ __forceinline__ uint32_t smem_ptr(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

}  // namespace rvllm::cuda
