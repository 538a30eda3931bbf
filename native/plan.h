// A traced model on the native side: buffers, ops, weights; where each buffer lives; bound calls.
//
// Liveness: a buffer lives from the op that writes it to the last op that reads it. Buffers whose
// lives do not overlap may share bytes of the one arena, so a step allocates nothing.
#pragma once
#include <vector>

#include "backend.h"

namespace rvllm {

// Where a buffer's bytes are: the arena, or an array of the step input.
enum class Source : uint8_t { arena = 0, token_ids = 1, positions = 2, slots = 3, logit_rows = 4 };

struct Buffer {
    DType dtype = DType::f32;
    Sym rows = Sym::one;
    int32_t cols = 0;
    Source source = Source::arena;
    int32_t group = 0;  // of slots
};

// Columns [start, start + cols) of a buffer; buffer < 0: absent.
struct View {
    int32_t buffer = -1;
    int32_t start = 0;
    int32_t cols = 0;
};

// Outputs are whole buffers; each buffer is written by one op.
struct PlanOp {
    Op op = Op::count;
    View in[kMaxInputs];
    View out[kMaxOutputs];
    int32_t weight[kMaxWeights] = {-1, -1};
    Attrs attrs;
};

struct Plan {
    std::vector<Buffer> buffers;
    std::vector<PlanOp> ops;
    std::vector<Weight> weights;
    int32_t logits = -1;  // the buffer that must outlive the last op
};

// Byte offset of each buffer in the arena (0 for step inputs), each on a 64-byte boundary.
struct Arena {
    std::vector<size_t> offset;
    size_t bytes = 0;
};

size_t buffer_bytes(const Buffer& b, const StepLimits& limits);
Arena plan_arena(const Plan& plan, const StepLimits& limits);

// The description that the choice of an op's kernel depends on.
KernelKey kernel_key(const Plan& plan, const PlanOp& op, DType kv);

// Resolves operands against the arena, the bound step input and the weights' addresses (which must
// not move afterwards). Kernels are looked up by kernel_key(); an op without one has fn == nullptr.
std::vector<OpCall> bind_calls(const Plan& plan, Backend* backend, DType kv, const Arena& arena, char* memory,
                               const StepInput& step);

}  // namespace rvllm
