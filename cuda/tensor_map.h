// Tensor maps for the bulk copy engine (sm_90), made by the driver, whose encoder is looked up at run time.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "tensor.h"

namespace rvllm::cuda {

// A matrix and the box that one copy moves: swizzled over rows of the box, zeros outside of the matrix.
struct TensorMapDesc {
    const void* data;
    DType dtype;
    int64_t rows, columns, row_stride;  // elements
    int32_t box_rows, box_columns;      // box_columns: 128 or 64 bytes
};

cudaError_t encode_tensor_map(CUtensorMap* map, const TensorMapDesc& desc);

}  // namespace rvllm::cuda
