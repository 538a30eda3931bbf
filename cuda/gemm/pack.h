// Weights between row-major arrays and the resident layout (layout.h), and single rows out of it.
#pragma once
#include <cuda_runtime_api.h>

#include "gemm/layout.h"
#include "tensor.h"

namespace rvllm::cuda {

// A resident weight: `data` holds packed_bytes(layout, n, k), zeroed when it was allocated, so that the
// padding rows stay zero. dtype is f16 or bf16.
struct PackedWeight {
    uint8_t* data;
    int64_t n, k;
    DType dtype;
    RowOrder order;
    WeightLayout layout;
};

// Converts rows [row, row + n_rows) of the model's weight from a row-major [n_rows, k] device array
// of `src_dtype` (f32, f16 or bf16).
cudaError_t pack_linear(const PackedWeight& w, const void* src, DType src_dtype, int64_t row, int64_t n_rows,
                        cudaStream_t stream);

// The inverse: the same rows as row-major float32.
cudaError_t unpack_linear(const PackedWeight& w, float* dst, int64_t row, int64_t n_rows,
                          cudaStream_t stream);

// y[i] = row ids[i] of the weight, i < n_ids, in `out` (the weight's type or f32), y_stride elements
// apart. An id outside [0, n) gives zeros.
cudaError_t embed_packed(const PackedWeight& w, const int32_t* ids, int64_t n_ids, void* y, int64_t y_stride,
                         DType out, cudaStream_t stream, bool pdl);

}  // namespace rvllm::cuda
