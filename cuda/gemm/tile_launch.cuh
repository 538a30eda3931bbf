// The body of launch_tile(), for the generated instantiations.
#pragma once
#include "gemm/tile.cuh"
#include "gemm/tile.h"

namespace rvllm::cuda {

template <typename T>
cudaError_t launch_tile(const LinearParams& params, cudaStream_t stream, bool pdl) {
    cudaLaunchAttribute attr = {};
    attr.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(row_blocks(params.n), ceil_div(params.m, kTileTokens));
    config.blockDim = kTileThreads;
    config.stream = stream;
    config.attrs = &attr;
    config.numAttrs = pdl ? 1 : 0;
    return cudaLaunchKernelEx(&config, linear_tile_kernel<T>, params);
}

}  // namespace rvllm::cuda
