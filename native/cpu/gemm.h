// y[m, n] = x[m, k] * w[n, k]^T + bias: float32 activations, packed weights (pack.h), float32 sums. With
// silu_mul, y[m, n / 2] = silu(first half) * second half of that, and w is in RowOrder::gate_up.
//
// Every output is ONE chain of additions over ascending k, in registers or, between blocks of k, in y
// itself. So a row of y is bitwise the same for every m, every number of threads and every neighbour.
#pragma once
#include "../tensor.h"
#include "isa.h"
#include "pool.h"

namespace rvllm {

// A micro-kernel's share: some rows times one or two panels, over some groups of k.
struct MicroArgs {
    const void* a;       // packed rows: [k group][row][k within the group]
    const void* w;       // first panel, at the first group
    size_t panel_bytes;  // from one panel to the next
    int64_t n_groups;
    float* y;
    int64_t y_stride;
    int64_t n_cols;     // columns of y that exist; the panels may be wider
    const float* bias;  // nullptr: none, or not yet (k goes on)
    bool resume;        // y holds the sum over the k before
    struct Prefetch {
        const char* at;  // one cache line is asked for per group of k
        int64_t step;
    } prefetch[2];
};

using Micro = void (*)(const MicroArgs&);

constexpr int kMaxMicroRows = 14;
constexpr int64_t kMaxChunkRows = 256;  // rows packed and multiplied at a time

// The kernels of one instruction set for one type of weights.
struct GemmKernels {
    const char* name;
    int max_rows;                 // rows of one micro-kernel
    int max_rows_wide;            // rows of one that takes two panels
    Micro narrow[kMaxMicroRows];  // [rows - 1]
    Micro wide[kMaxMicroRows];
    size_t a_bytes;  // of one packed activation
    // Packs `rows` rows of x[., k] for a micro-kernel of that many rows.
    void (*pack_rows)(const float* x, int64_t x_stride, int64_t k, int rows, void* a);
};

const GemmKernels* gemm_kernels(DType weight, Isa set);

struct Gemm {
    const GemmKernels* kernels;
    DType dtype;  // of w
    int64_t m, n, k;
    const float* x;
    int64_t x_stride;
    const void* w;
    const float* bias;  // [n] or nullptr
    float* y;
    int64_t y_stride;
    bool silu_mul = false;
};

// Bytes of the pool's scratch that a product of up to m rows takes: its packed input and, with silu_mul, the
// sums of two panels for each thread.
size_t gemm_scratch_bytes(DType weight, int64_t m, int64_t k, bool silu_mul, int n_threads);

void gemm(ThreadPool* pool, const Gemm& g);

const GemmKernels* gemm_kernels_generic(DType weight);
const GemmKernels* gemm_kernels_avx2(DType weight);
const GemmKernels* gemm_kernels_avx512(DType weight);
const GemmKernels* gemm_kernels_avx512_bf16(DType weight);  // bf16 only

}  // namespace rvllm
