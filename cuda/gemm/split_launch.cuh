// The body of launch_split(), for the generated instantiations.
#pragma once
#include "device/launch.cuh"
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
    const dim3 grid(desc.split, row_blocks(params.n), ceil_div(params.m, Tokens));
    const LaunchShape shape = {grid, kSplitThreads, (size_t)split_smem_bytes(Tokens, desc.n_stages),
                               desc.split};
    return launch_kernel(kernel, shape, stream, pdl, x_map, w_map, params);
}

}  // namespace rvllm::cuda
