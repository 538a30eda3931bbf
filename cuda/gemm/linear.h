// y = act(x @ weight^T + bias) + residual for every M, on a stream. Choose once, launch per step.
//
//   const LinearDesc desc = choose_linear(device, shape);       // pure; kernel == none: refuse
//   launch_linear(desc, args, workspace, stream, pdl);          // enqueues, allocates nothing
//
// With pdl, the kernel may start while its predecessor on the stream runs (device/pdl.cuh) and lets
// its successor do the same; weights, biases and the workspace must then not be written by kernels
// shortly before. M is fixed at launch: a captured graph is for one padded number of rows.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

#include "gemm/choose.h"
#include "gemm/layout.h"
#include "gemm/params.h"

namespace rvllm::cuda {

struct LinearArgs {
    const void* weight;              // resident [n, k]
    const void* x;                   // [m, k] of the weight's type, rows x_stride apart; 16-byte aligned rows
    const float* bias = nullptr;     // [n] in the order of the model
    const void* residual = nullptr;  // [m, columns of y] of the weight's type; may be y
    void* y = nullptr;               // [m, n], after silu_mul [m, n / 2]
    int64_t x_stride = 0, residual_stride = 0, y_stride = 0;  // elements
    int32_t m = 0, n = 0, k = 0;
    WeightLayout layout = WeightLayout::tiles;
    Act act = Act::none;      // silu_mul needs n % 16 == 0 and weights in RowOrder::gate_up
    DType out = DType::bf16;  // type of y: the weight's, or f32
    RopeTarget rope = {};     // of Act::rope: needs can_rope(), no residual and y of the weight's type
    void* scratch = nullptr;  // of LinearKernel::cublas: CublasLt::scratch_bytes()
};

// The same for rows [first, first + m).
LinearArgs row_slice(const LinearArgs& args, int32_t first, int32_t m);

// Bytes that launches on one stream share, for any shape; zero them once.
size_t linear_workspace_bytes(const Device& device);

// The kernels of this library: not LinearKernel::cublas.
cudaError_t launch_linear(const LinearDesc& desc, const LinearArgs& args, void* workspace,
                          cudaStream_t stream, bool pdl);

}  // namespace rvllm::cuda
