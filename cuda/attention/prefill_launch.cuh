// The body of launch_prefill_attention(), for the generated instantiations.
#pragma once
#include "device/launch.cuh"
#include "attention/launch.h"
#include "attention/prefill.cuh"

namespace rvllm::cuda {

template <typename T, int D>
cudaError_t launch_prefill_attention(const AttentionParams& params, int n_tiles, cudaStream_t stream,
                                     bool pdl) {
    // Tiles are sized by the architecture that the kernel was compiled for.
    struct Shared {
        int bytes;
        cudaError_t ready;
    };
    static const Shared shared = [] {
        cudaFuncAttributes attributes = {};
        cudaError_t e = cudaFuncGetAttributes(&attributes, prefill_attention_kernel<T, D>);
        const int bytes = prefill_smem_bytes(attributes.ptxVersion, D);
        if (e == cudaSuccess)
            e = cudaFuncSetAttribute(prefill_attention_kernel<T, D>,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        return Shared{bytes, e};
    }();
    if (shared.ready != cudaSuccess) return shared.ready;
    const LaunchShape shape = {dim3(params.n_kv_heads, n_tiles), 32 * kPrefillWarps, (size_t)shared.bytes};
    return launch_kernel(prefill_attention_kernel<T, D>, shape, stream, pdl, params);
}

}  // namespace rvllm::cuda
