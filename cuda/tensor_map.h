// Tensor maps for the bulk copy engine (sm_90), made by the driver, whose encoder is looked up at run time.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "tensor.h"

namespace rvllm::cuda {

// A matrix of 16-bit elements and the box that one copy moves: 128-byte swizzle, zeros outside of the matrix.
struct TensorMapDesc {
    const void* data;
    DType dtype;
    int64_t rows, columns, row_stride;  // elements
    int32_t box_rows, box_columns;      // box_columns: 64
};

cudaError_t encode_tensor_map(CUtensorMap* map, const TensorMapDesc& desc);

}  // namespace rvllm::cuda
