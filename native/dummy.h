// Random weights for capacity tests: the same values for any thread count and any chunking.
#pragma once
#include <cstdint>

#include "backend.h"

namespace rvllm {

// Fills elements [first, first + n) of a weight: nearly normal, mean 0, standard deviation `scale`.
// `dtype` is f32 or bf16.
void random_elements(void* dst, DType dtype, int64_t first, int64_t n, uint32_t seed, float scale);

// Packs a whole weight of random elements. Returns nonzero with backend->error set on failure.
int pack_random(Backend* backend, Weight* w, uint32_t seed, float scale);

}  // namespace rvllm
