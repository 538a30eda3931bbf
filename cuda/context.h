// What every launch of the CUDA backend shares: the stream, workspaces, and the first error of a step.
#pragma once
#include <cuda_runtime_api.h>

#include "attention/choose.h"
#include "attention/work.h"
#include "backend.h"
#include "gemm/choose.h"
#include "gemm/layout.h"
#include "gemm/table.h"

namespace rvllm::cuda {

class CublasLt;

struct Context {
    Device device;
    AttentionDevice attention_device;
    cudaStream_t stream = nullptr;
    bool batch_invariant = false;
    bool pdl = true;  // kernels may start before their predecessor has ended (device/pdl.cuh)
    GemmStrategy gemm_strategy = GemmStrategy::cutlass;
    LinearTable linear_table;  // measured choices, if any
    void* linear_workspace = nullptr;
    CublasLt* cublas = nullptr;      // of the strategies that need it
    void* linear_scratch = nullptr;  // of the running plan: products that an epilogue is to finish
    AttentionWork attention[kMaxCacheGroups];
    cudaError_t error = cudaSuccess;  // of the first launch that failed since it was cleared
    const char* failed = "";          // its kernel

    WeightLayout layout() const {
        return gemm_strategy == GemmStrategy::cutlass ? WeightLayout::tiles : WeightLayout::rows;
    }
};

inline Context& context_of(const RunContext& ctx) {
    return *static_cast<Context*>(ctx.device);
}

// Device memory, zero before anything that is enqueued on `stream` behind this. The stream is to be named:
// the default one, which cudaMemset() takes, is not ordered with it.
inline cudaError_t alloc_zeroed(void** memory, size_t bytes, cudaStream_t stream) {
    *memory = nullptr;
    if (bytes == 0) return cudaSuccess;
    cudaError_t e = cudaMalloc(memory, bytes);
    if (e == cudaSuccess) e = cudaMemsetAsync(*memory, 0, bytes, stream);
    return e;
}

inline void note_error(Context& c, const OpCall& call, cudaError_t e) {
    if (e == cudaSuccess || c.error != cudaSuccess) return;
    c.error = e;
    c.failed = call.kernel_name;
}

}  // namespace rvllm::cuda
