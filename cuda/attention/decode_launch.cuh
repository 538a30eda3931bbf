// The body of launch_decode_attention(), for the generated instantiations.
#pragma once
#include "attention/decode.cuh"
#include "attention/launch.cuh"
#include "attention/launch.h"

namespace rvllm::cuda {

template <typename T, int D>
cudaError_t launch_decode_attention(const AttentionParams& params, int n_ctas, cudaStream_t stream,
                                    bool pdl) {
    // Tiles are sized by the architecture that the kernel was compiled for.
    struct Shared {
        int bytes;
        cudaError_t ready;
    };
    static const Shared shared = [] {
        cudaFuncAttributes attributes = {};
        cudaError_t e = cudaFuncGetAttributes(&attributes, decode_attention_kernel<T, D>);
        const int bytes = decode_smem_bytes(attributes.ptxVersion, D);
        if (e == cudaSuccess)
            e = cudaFuncSetAttribute(decode_attention_kernel<T, D>,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        return Shared{bytes, e};
    }();
    return launch_attention(decode_attention_kernel<T, D>, shared.ready, dim3(n_ctas), 32 * kDecodeWarps,
                            shared.bytes, stream, pdl, params);
}

}  // namespace rvllm::cuda
