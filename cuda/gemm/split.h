// Launches linear_split_kernel (split.cuh); one instantiation per translation unit.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "gemm/choose.h"
#include "gemm/params.h"

namespace rvllm::cuda {

template <typename T, int Tokens>
cudaError_t launch_split(const LinearDesc& desc, const CUtensorMap& x_map, const CUtensorMap& w_map,
                         const LinearParams& params, cudaStream_t stream, bool pdl);

}  // namespace rvllm::cuda
