// The body of launch_prefill_attention(), for the generated instantiations.
#pragma once
#include "attention/launch.cuh"
#include "attention/prefill.cuh"

namespace rvllm::cuda {

template <typename T, int D>
cudaError_t launch_prefill_attention(const AttentionParams& params, int n_tiles, cudaStream_t stream,
                                     bool pdl) {
    constexpr int kBytes = prefill_smem_bytes(D);
    static const cudaError_t ready = cudaFuncSetAttribute(
        prefill_attention_kernel<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    return launch_attention(prefill_attention_kernel<T, D>, ready, dim3(params.n_kv_heads, n_tiles),
                            32 * kPrefillWarps, kBytes, params, stream, pdl);
}

}  // namespace rvllm::cuda
