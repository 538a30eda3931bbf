// Measures linear kernels on the GPU that is here, for a LinearTable.
#pragma once
#include <string>

#include "context.h"
#include "op.h"

namespace rvllm::cuda {

// Appends an entry (table.h) for every range of rows, up to shape.m, in which a way beats the built-in choice
// by more than noise. `op` is what the product is part of, `out` the type of its result.
cudaError_t tune_linear(Context& context, const LinearShape& shape, Op op, DType out, std::string* lines);

}  // namespace rvllm::cuda
