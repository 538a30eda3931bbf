// Random weights for capacity tests: a value depends on seed and index alone.
#pragma once
#include "../weight.h"
#include "pool.h"

namespace rvllm {

// Fills elements [first, first + n) of a matrix: nearly normal, mean 0, standard deviation `scale`.
// `dtype` is f32 or bf16.
void random_elements(void* dst, DType dtype, int64_t first, int64_t n, uint32_t seed, float scale);

// Fills a whole dense weight. Nonzero: a type without a layout.
int cpu_fill_random(Weight* w, uint32_t seed, float scale, ThreadPool* pool);

}  // namespace rvllm
