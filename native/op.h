// An op of a plan as every backend sees it: which op, on what, and the function bound to it.
#pragma once
#include "step.h"
#include "tensor.h"
#include "weight.h"

namespace rvllm {

enum class Op : uint8_t {
#define OP(name, inputs, weights, outputs, attrs) name,
#include "ops.def"
#undef OP
    count
};

// All static attributes an op can have. Names are those used in ops.def; unused ones stay zero.
struct Attrs {
    int32_t layer = 0;  // index of the layer's cache within its group
    int32_t group = 0;  // cache group (see KvCacheView)
    int32_t n_heads = 0;
    int32_t n_kv_heads = 0;
    int32_t head_dim = 0;
    int32_t rotary_dim = 0;
    float eps = 0;
    float softmax_scale = 0;
    float rope_scale = 1;
};

constexpr int kMaxInputs = 5;
constexpr int kMaxWeights = 2;
constexpr int kMaxOutputs = 2;

struct OpCall;

// What a kernel may use besides its operands. `device` is the backend's own context: the thread
// pool on the CPU, the stream on CUDA.
struct RunContext {
    const StepInput* step;
    const KvCacheView* kv;  // one per cache group
    void* device;
};

// Runs one op. Must not allocate, throw or take the GIL.
using KernelFn = void (*)(const OpCall& call, const RunContext& ctx);

// Absent operands have data == nullptr (weights: nullptr). Outputs never alias inputs unless the
// planner says so for an elementwise op: y may be a (or x), same shape and stride.
struct OpCall {
    Op op = Op::count;
    Operand in[kMaxInputs];
    Operand out[kMaxOutputs];
    const Weight* weight[kMaxWeights] = {nullptr, nullptr};
    Attrs attrs;
    KernelFn fn = nullptr;
    const char* kernel_name = "";
};

// One line of ops.def: space-separated names.
struct OpInfo {
    const char* name;
    const char* inputs;
    const char* weights;
    const char* outputs;
    const char* attrs;
};

const OpInfo& op_info(Op op);
const char* op_name(Op op);

// Rows that operand has in this step.
inline int64_t rows_of(const Operand& o, const StepInput& s) {
    switch (o.rows) {
        case Sym::tokens: return s.n_tokens;
        case Sym::seqs: return s.n_seqs;
        case Sym::rows: return s.n_rows;
        default: return 1;
    }
}

}  // namespace rvllm
