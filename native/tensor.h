// Element types, symbolic sizes and the plan's tensors.
//
// Every activation of a plan is a matrix: `rows` is symbolic (how many of them exist is known per
// step), `cols` is fixed at trace time. A view of some columns of another tensor has the same
// buffer, an offset and the parent's row stride; slicing is never an op.
#pragma once
#include <cstddef>
#include <cstdint>

namespace rvllm {

enum class DType : uint8_t { f32 = 0, f16 = 1, bf16 = 2, i32 = 3 };

inline size_t dtype_bytes(DType t) {
    return t == DType::f32 || t == DType::i32 ? 4 : 2;
}

// The leading dimension of a tensor: a constant, or one of the sizes of a step.
enum class Sym : uint8_t {
    one = 0,     // fixed: the factor itself
    tokens = 1,  // tokens of the step (all query positions of all sequences)
    seqs = 2,    // sequences of the step
    rows = 3,    // rows whose logits the step wants
};

// An operand as a kernel sees it. `data` is resolved by bind(); rows are looked up per step.
struct Operand {
    void* data = nullptr;
    int64_t row_stride = 0;  // elements between two rows
    int32_t cols = 0;
    DType dtype = DType::f32;
    Sym rows = Sym::one;
};

}  // namespace rvllm
