// Functions over one row of floats, one table per instruction set: the inner loops of the small ops.
//
// What a row gets depends on that row alone, so results are the same for any batch and any split of
// the work. Element-wise functions may run in place.
#pragma once
#include <cstdint>

#include "isa.h"

namespace rvllm {

struct RowKernels {
    // y = w * (x / sqrt(mean(x^2) + eps))
    void (*rms_norm)(const float* x, const float* w, float* y, int64_t n, float eps);
    void (*add)(const float* a, const float* b, float* y, int64_t n);
    void (*mul)(const float* a, const float* b, float* y, int64_t n);
    void (*silu)(const float* x, float* y, int64_t n);
    void (*silu_mul)(const float* gate, const float* up, float* y, int64_t n);
    // One head: turns x[0, half) with x[half, 2 half); table: `half` cosines, then as many sines.
    void (*rope)(const float* x, const float* table, float* y, int64_t half);
    void (*to_f16)(const float* x, uint16_t* y, int64_t n);
    void (*to_bf16)(const float* x, uint16_t* y, int64_t n);
};

extern const RowKernels rows_generic;
#if defined(__x86_64__)
extern const RowKernels rows_avx2;
extern const RowKernels rows_avx512;
#endif

const RowKernels& row_kernels();  // of isa()

}  // namespace rvllm
