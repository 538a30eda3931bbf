// The body of launch_decode_attention(), for the generated instantiations.
#pragma once
#include "attention/decode.cuh"
#include "device/launch.cuh"
#include "attention/launch.h"

namespace rvllm::cuda {

template <typename T, int D, int Heads>
cudaError_t launch_decode_tiles(const AttentionParams& params, int n_ctas, cudaStream_t stream, bool pdl) {
    // Tiles are sized by the architecture that the kernel was compiled for.
    struct Shared {
        int bytes;
        cudaError_t ready;
    };
    const auto kernel = decode_attention_kernel<T, D, Heads>;
    static const Shared shared = [kernel] {
        cudaFuncAttributes attributes = {};
        cudaError_t e = cudaFuncGetAttributes(&attributes, kernel);
        const int bytes = decode_smem_bytes(attributes.ptxVersion, D);
        if (e == cudaSuccess)
            e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        return Shared{bytes, e};
    }();
    if (shared.ready != cudaSuccess) return shared.ready;
    const LaunchShape shape = {dim3(n_ctas), 32 * kDecodeWarps, (size_t)shared.bytes};
    return launch_kernel(kernel, shape, stream, pdl, params);
}

template <typename T, int D>
cudaError_t launch_decode_attention(const AttentionParams& params, int n_ctas, cudaStream_t stream,
                                    bool pdl) {
    return tile_heads(params.group_size) == 8 ? launch_decode_tiles<T, D, 8>(params, n_ctas, stream, pdl)
                                              : launch_decode_tiles<T, D, 16>(params, n_ctas, stream, pdl);
}

}  // namespace rvllm::cuda
