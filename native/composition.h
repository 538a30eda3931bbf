// The ops that a fused op stands for, on its operands: for backends that run one after the other.
#pragma once
#include "op.h"

namespace rvllm {

inline Operand columns(const Operand& o, int32_t first, int32_t n) {
    Operand part = o;
    part.data = static_cast<char*>(o.data) + first * dtype_bytes(o.dtype);
    part.cols = n;
    return part;
}

struct LinearThenRope {
    OpCall linear, rope_kv_write;
};

inline LinearThenRope composition(const OpCall& call) {
    LinearThenRope c{call, call};
    const Operand& qkv = call.out[1];
    const int32_t q_cols = call.out[0].cols, kv_cols = (qkv.cols - q_cols) / 2;
    c.linear.op = Op::linear;
    c.linear.out[0] = qkv;
    c.rope_kv_write.op = Op::rope_kv_write;
    c.rope_kv_write.in[0] = columns(qkv, 0, q_cols);
    c.rope_kv_write.in[1] = columns(qkv, q_cols, kv_cols);
    c.rope_kv_write.in[2] = columns(qkv, q_cols + kv_cols, kv_cols);
    c.rope_kv_write.in[3] = call.in[1];
    c.rope_kv_write.in[4] = call.in[2];
    c.rope_kv_write.weight[0] = c.rope_kv_write.weight[1] = nullptr;
    return c;
}

}  // namespace rvllm
