// The body of launch_tile(), for the generated instantiations.
#pragma once
#include "device/launch.cuh"
#include "gemm/tile.cuh"
#include "gemm/tile.h"

namespace rvllm::cuda {

template <typename T, int Tokens>
cudaError_t launch_tile(const LinearDesc& desc, const TilePlan& plan, const LinearParams& params,
                        cudaStream_t stream, bool pdl) {
    auto kernel = linear_tile_kernel<T, Tokens>;
    const int smem_bytes = desc.n_stages * TileRing<Tokens>::kSlotBytes;
    static int allowed = 0;
    if (smem_bytes > allowed) {
        const cudaError_t e =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, smem_bytes);
        if (e != cudaSuccess) return e;
        allowed = smem_bytes;
    }
    const LaunchShape shape = {dim3(desc.n_ctas), kTileThreads, (size_t)smem_bytes};
    return launch_kernel(kernel, shape, stream, pdl, params, plan);
}

}  // namespace rvllm::cuda
