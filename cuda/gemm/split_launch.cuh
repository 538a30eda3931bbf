// The body of launch_split(), for the generated instantiations.
#pragma once
#include "gemm/split.cuh"
#include "gemm/split.h"

namespace rvllm::cuda {

template <typename T, int Tokens>
cudaError_t launch_split(const LinearDesc& desc, const CUtensorMap& x_map, const CUtensorMap& w_map,
                         const LinearParams& params, cudaStream_t stream, bool pdl) {
    auto kernel = linear_split_kernel<T, Tokens>;
    static const cudaError_t ready =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSplitMaxSmemBytes);
    if (ready != cudaSuccess) return ready;
    cudaLaunchAttribute attrs[2] = {};
    attrs[0].id = cudaLaunchAttributeClusterDimension;
    attrs[0].val.clusterDim = {(unsigned)desc.split, 1, 1};
    attrs[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attrs[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(desc.split, row_blocks(params.n), ceil_div(params.m, Tokens));
    config.blockDim = kSplitThreads;
    config.dynamicSmemBytes = split_smem_bytes(Tokens, desc.n_stages);
    config.stream = stream;
    config.attrs = attrs;
    config.numAttrs = pdl ? 2 : 1;
    return cudaLaunchKernelEx(&config, kernel, x_map, w_map, params);
}

}  // namespace rvllm::cuda
