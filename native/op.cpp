// The names of ops.def at run time.
#include "op.h"

namespace rvllm {
namespace {

const OpInfo kOps[] = {
#define OP(name, inputs, weights, outputs, attrs) {#name, inputs, weights, outputs, attrs},
#include "ops.def"
#undef OP
};

}  // namespace

const OpInfo& op_info(Op op) {
    return kOps[static_cast<int>(op)];
}

const char* op_name(Op op) {
    return op_info(op).name;
}

}  // namespace rvllm
