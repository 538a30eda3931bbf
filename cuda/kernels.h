// The CUDA kernels: one find function per op of ops.def. Activations are f16 or bf16, the rope table and
// logits float32; cache and matrices have the type of the activations.
#pragma once
#include "backend.h"

namespace rvllm::cuda {

#define OP(name, inputs, weights, outputs, attrs) Kernel find_##name(const KernelKey& key);
#include "ops.def"
#undef OP

inline bool is_half(DType t) {
    return t == DType::f16 || t == DType::bf16;
}
inline bool same_half(const KernelKey& key) {
    return is_half(key.in) && key.in == key.out;
}

}  // namespace rvllm::cuda
