// Opaque weights: a format, a shape and the backend's resident layout of the bytes.
//
// Models and plans never look inside. A quantised format adds a Format and kernels, not models.
#pragma once
#include <cstddef>
#include <cstdint>

#include "tensor.h"

namespace rvllm {

enum class WeightFormat : uint8_t {
    vector,  // [n] float32: norm weights, biases, rope frequencies; copied as they are
    dense,   // [n, k] of `dtype`: linear and embedding (one layout serves both, for tied ones)
};

// How the rows of a dense weight are used, which its layout may follow.
enum class RowOrder : uint8_t {
    plain,
    gate_up,  // row i < n / 2, a gate, together with row n / 2 + i, its up projection
};

struct Weight {
    WeightFormat format = WeightFormat::dense;
    RowOrder order = RowOrder::plain;
    DType dtype = DType::f32;  // element type of `data`
    int64_t n = 0;             // output features, or vocabulary; length of a vector
    int64_t k = 0;             // input features; 1 for a vector
    void* data = nullptr;      // backend memory, in the backend's layout for this format
    size_t bytes = 0;          // size of `data`, padding included
};

}  // namespace rvllm
