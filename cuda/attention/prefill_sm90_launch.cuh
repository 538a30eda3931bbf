// The body of launch_prefill_sm90(), for the generated instantiations.
#pragma once
#include "device/launch.cuh"
#include "attention/prefill_sm90.cuh"
#include "attention/sm90.h"

namespace rvllm::cuda {

template <typename T, int D>
cudaError_t launch_prefill_sm90(const CUtensorMap& k_map, const CUtensorMap& v_map,
                                const AttentionParams& params, int n_tiles, cudaStream_t stream, bool pdl) {
    constexpr int kBytes = wgmma_smem_bytes(D);
    static const cudaError_t ready =
        cudaFuncSetAttribute(prefill_sm90_kernel<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    if (ready != cudaSuccess) return ready;
    const LaunchShape shape = {dim3(params.n_kv_heads, n_tiles), kWgmmaThreads, kBytes};
    return launch_kernel(prefill_sm90_kernel<T, D>, shape, stream, pdl, k_map, v_map, params);
}

}  // namespace rvllm::cuda
