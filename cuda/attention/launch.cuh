// The launch that all attention kernels share.
#pragma once
#include <cuda_runtime_api.h>

namespace rvllm::cuda {

template <typename... Args>
cudaError_t launch_attention(void (*kernel)(Args...), cudaError_t ready, dim3 grid, int threads,
                             int smem_bytes, cudaStream_t stream, bool pdl, const Args&... args) {
    if (ready != cudaSuccess) return ready;
    cudaLaunchAttribute attr = {};
    attr.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = threads;
    config.dynamicSmemBytes = smem_bytes;
    config.stream = stream;
    config.attrs = &attr;
    config.numAttrs = pdl ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, args...);
}

}  // namespace rvllm::cuda
