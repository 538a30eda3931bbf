// Launches of the attention kernels; one instantiation per translation unit.
#pragma once
#include <cuda_runtime_api.h>

#include "attention/params.h"

namespace rvllm::cuda {

// n_ctas: of the grid; any number gives the same result. n_tiles: of the step's list.
template <typename T, int D>
cudaError_t launch_decode_attention(const AttentionParams& params, int n_ctas, cudaStream_t stream, bool pdl);

template <typename T, int D>
cudaError_t launch_prefill_attention(const AttentionParams& params, int n_tiles, cudaStream_t stream,
                                     bool pdl);

}  // namespace rvllm::cuda
