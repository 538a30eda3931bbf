// The body of launch_decode_attention(), for the generated instantiations.
#pragma once
#include "attention/decode.cuh"
#include "attention/launch.cuh"

namespace rvllm::cuda {

template <typename T, int D>
cudaError_t launch_decode_attention(const AttentionParams& params, int n_ctas, cudaStream_t stream,
                                    bool pdl) {
    constexpr int kBytes = decode_smem_bytes(D);
    static const cudaError_t ready = cudaFuncSetAttribute(
        decode_attention_kernel<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    return launch_attention(decode_attention_kernel<T, D>, ready, dim3(n_ctas), 32 * kDecodeWarps, kBytes,
                            params, stream, pdl);
}

}  // namespace rvllm::cuda
