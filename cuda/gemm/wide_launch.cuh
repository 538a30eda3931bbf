// The body of launch_wide(), for the generated instantiations.
#pragma once
#include "gemm/wide.cuh"
#include "gemm/wide.h"

namespace rvllm::cuda {

template <typename T, int Tokens>
cudaError_t launch_wide(const LinearDesc& desc, const CUtensorMap& x_map, const CUtensorMap& w_map,
                        const LinearParams& params, cudaStream_t stream, bool pdl) {
    auto kernel = linear_wide_kernel<T, Tokens>;
    static const cudaError_t ready =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kWideMaxSmemBytes);
    if (ready != cudaSuccess) return ready;
    cudaLaunchAttribute attrs[2] = {};
    attrs[0].id = cudaLaunchAttributeClusterDimension;
    attrs[0].val.clusterDim = {(unsigned)desc.sharing, 1, 1};
    attrs[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attrs[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = desc.n_ctas;
    config.blockDim = kWideThreads;
    config.dynamicSmemBytes = wide_smem_bytes(Tokens, desc.n_stages);
    config.stream = stream;
    config.attrs = attrs;
    config.numAttrs = pdl ? 2 : 1;
    return cudaLaunchKernelEx(&config, kernel, x_map, w_map, params);
}

}  // namespace rvllm::cuda
