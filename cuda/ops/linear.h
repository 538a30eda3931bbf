// The product of an op, for the ops that contain one.
#pragma once
#include "context.h"
#include "gemm/linear.h"

namespace rvllm::cuda {

// y = x @ weight^T + bias of a call's first input, weights and first output, for the rows of the step.
LinearArgs linear_args(const OpCall& call, const RunContext& ctx);
LinearDesc linear_desc(const LinearArgs& args, const OpCall& call, const RunContext& ctx);
void run_linear(const LinearDesc& desc, const LinearArgs& args, const OpCall& call, const RunContext& ctx);

// What products of cuBLASLt need: device memory for steps of these calls, and algorithms (nullptr, or what is
// wrong).
size_t linear_scratch_bytes(const Context& context, const OpCall* calls, int32_t n_calls,
                            const StepLimits& limits);
const char* prepare_linears(Context& context, const OpCall* calls, int32_t n_calls, const StepLimits& limits);

// The kernels of ops that others are composed of.
void run_linear(const OpCall& call, const RunContext& ctx);
void run_rope_kv_write(const OpCall& call, const RunContext& ctx);

}  // namespace rvllm::cuda
