// Launches of the attention kernels of sm_90a; one instantiation per translation unit.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "attention/params.h"

namespace rvllm::cuda {

// As launch.h; the maps are those of the layer's keys and values (paged.cuh).
template <typename T, int D>
cudaError_t launch_prefill_sm90(const CUtensorMap& k_map, const CUtensorMap& v_map,
                                const AttentionParams& params, int n_tiles, cudaStream_t stream, bool pdl);

}  // namespace rvllm::cuda
