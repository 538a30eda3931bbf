// What every linear kernel is launched with, and the epilogue it ends in.
#pragma once
#include <cstdint>

#include "tensor.h"

namespace rvllm::cuda {

// Applied to the products in float32, in this order: bias, silu_mul, residual, rounding.
enum class Act : uint8_t {
    none,
    silu_mul,  // y[., i] = silu(gate[i]) * up[i]: weights in RowOrder::gate_up, y has N / 2 columns
};

struct LinearParams {
    const uint8_t* weight;  // packed (layout.h)
    const void* x;          // [M, K] (the tensor map has it too)
    const float* bias;      // [N] in the order of the model, or nullptr
    const void* residual;   // [M, columns of y], activation type, or nullptr
    void* y;                // [M, N], or [M, N / 2] after silu_mul
    int64_t x_stride;       // elements between rows
    int64_t residual_stride;
    int64_t y_stride;
    void* workspace;  // sums handed from CTA to CTA
    int32_t* flags;   // one per CTA: its sums are in the workspace; all zero between launches
    int32_t m, n, k;
    int32_t trigger;   // tiles before the last at which the next kernel may start; < 0: at exit
    int32_t n_stages;  // ring of tiles in shared memory
    Act act;
    DType out;    // type of y: the activation type, or f32
    bool vector;  // rows of y and residual may be written four elements at a time
};

}  // namespace rvllm::cuda
