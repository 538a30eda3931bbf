// The body of launch_large(), for the generated instantiations.
#pragma once
#include "device/launch.cuh"
#include "gemm/large.cuh"
#include "gemm/large.h"

namespace rvllm::cuda {

template <typename T, int Tokens>
cudaError_t launch_large(const LinearDesc& desc, const CUtensorMap& x_map, const CUtensorMap& y_map,
                         const LargePlan& plan, const LinearParams& params, cudaStream_t stream, bool pdl) {
    auto kernel = linear_large_kernel<T, Tokens>;
    static const cudaError_t ready =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kLargeMaxSmemBytes);
    if (ready != cudaSuccess) return ready;
    const LaunchShape shape = {dim3(desc.n_ctas), kLargeThreads,
                               (size_t)large_smem_bytes(Tokens, desc.n_stages), desc.sharing};
    return launch_kernel(kernel, shape, stream, pdl, x_map, y_map, plan, params);
}

}  // namespace rvllm::cuda
