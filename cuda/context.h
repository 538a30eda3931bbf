// What every launch of the CUDA backend shares: the stream, workspaces, and the first error of a step.
#pragma once
#include <cuda_runtime_api.h>

#include "attention/choose.h"
#include "attention/work.h"
#include "backend.h"
#include "gemm/choose.h"

namespace rvllm::cuda {

struct Context {
    Device device;
    AttentionDevice attention_device;
    cudaStream_t stream = nullptr;
    bool batch_invariant = false;
    bool pdl = true;  // kernels may start before their predecessor has ended (device/pdl.cuh)
    void* linear_workspace = nullptr;
    AttentionWork attention[kMaxCacheGroups];
    cudaError_t error = cudaSuccess;  // of the first launch that failed since it was cleared
    const char* failed = "";          // its kernel
};

inline Context& context_of(const RunContext& ctx) {
    return *static_cast<Context*>(ctx.device);
}

inline void note_error(Context& c, const OpCall& call, cudaError_t e) {
    if (e == cudaSuccess || c.error != cudaSuccess) return;
    c.error = e;
    c.failed = call.kernel_name;
}

}  // namespace rvllm::cuda
