// Launches linear_tile_kernel (tile.cuh); one instantiation per translation unit.
#pragma once
#include <cuda_runtime_api.h>

#include "gemm/params.h"

namespace rvllm::cuda {

template <typename T>
cudaError_t launch_tile(const LinearParams& params, cudaStream_t stream, bool pdl);

}  // namespace rvllm::cuda
