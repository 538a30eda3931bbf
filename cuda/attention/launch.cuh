// The launch that both attention kernels share.
#pragma once
#include "attention/launch.h"

namespace rvllm::cuda {

inline cudaError_t launch_attention(void (*kernel)(AttentionParams), cudaError_t ready, dim3 grid,
                                    int threads, int smem_bytes, const AttentionParams& params,
                                    cudaStream_t stream, bool pdl) {
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
    return cudaLaunchKernelEx(&config, kernel, params);
}

}  // namespace rvllm::cuda
