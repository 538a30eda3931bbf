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
    cudaLaunchAttribute attr = {};
    attr.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = desc.n_ctas;
    config.blockDim = kWideThreads;
    config.dynamicSmemBytes = wide_smem_bytes(Tokens, desc.n_stages);
    config.stream = stream;
    config.attrs = &attr;
    config.numAttrs = pdl ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, x_map, w_map, params);
}

}  // namespace rvllm::cuda
