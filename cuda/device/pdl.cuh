// Programmatic dependent launch: a kernel may start while its predecessor still runs. Nothing that
// a predecessor writes may be read, and nothing that it reads may be written, before pdl_wait().
#pragma once

namespace rvllm::cuda {

// Lets the next kernel's CTAs start once every CTA of this grid has called it or has exited.
__device__ __forceinline__ void pdl_launch_dependents() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Waits until the preceding grids have completed and their writes are visible.
__device__ __forceinline__ void pdl_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace rvllm::cuda
