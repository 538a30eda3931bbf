// What every linear kernel is launched with, and the epilogue it ends in.
#pragma once
#include <cstdint>

#include "tensor.h"

namespace rvllm::cuda {

// Applied to the products in float32, in this order: bias, silu_mul or rope, residual, rounding.
enum class Act : uint8_t {
    none,
    rope,      // heads of q, k and v, see RopeTarget: of kernels that can_rope()
    silu_mul,  // y[., i] = silu(gate[i]) * up[i]: weights in RowOrder::gate_up, y has N / 2 columns
};

// Act::rope: rows are the heads of q, then of k, then of v. Heads of q and k are turned (rotate-half); q goes
// to y, k and v to one layer of the paged cache (KvCacheView), where the token's slot is not negative.
struct RopeTarget {
    const float* table;    // [M, head_dim]: cosines, then sines
    const int32_t* slots;  // [M]
    void *k, *v;           // the layer's blocks
    int64_t table_stride;  // elements
    int64_t block_elements;
    int32_t block_size, head_dim, n_heads, n_kv_heads;
};

struct LinearParams {
    const uint8_t* weight;  // packed (layout.h)
    bool rows;              // in WeightLayout::rows, which the kernels of sm_90a read through a tensor map
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
    RopeTarget rope;
    DType out;    // type of y: the activation type, or f32
    bool vector;  // rows of y and residual may be written four elements at a time
};

}  // namespace rvllm::cuda
