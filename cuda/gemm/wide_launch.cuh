// The body of launch_wide(), for the generated instantiations.
#pragma once
#include "device/launch.cuh"
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
    const LaunchShape shape = {dim3(desc.n_ctas), kWideThreads,
                               (size_t)wide_smem_bytes(Tokens, desc.n_stages)};
    return launch_kernel(kernel, shape, stream, pdl, x_map, w_map, params);
}

}  // namespace rvllm::cuda
