// The end of a linear kernel: float32 sums become rows of y. Four neighbouring features of one
// token are a unit of work.
#pragma once
#include "device/convert.cuh"
#include "gemm/layout.h"
#include "gemm/params.h"

namespace rvllm::cuda {

__device__ __forceinline__ float silu(float v) {
    float e, inverse;  // without care for denormals: 6 instructions
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(v * -1.4426950408889634f));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + e));
    return v * inverse;
}

__device__ __forceinline__ float4 operator+(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// Units per token and block of 128 stored rows: 32, or 16 of two times four rows.
__device__ __forceinline__ int epilogue_units(Act act) {
    return act == Act::none ? 32 : 16;
}

// First of the four stored rows of a unit, within its block; with silu_mul these are gates, and
// their up projections are 8 rows further.
__device__ __forceinline__ int unit_row(Act act, int unit) {
    return act == Act::silu_mul ? unit / 2 * 16 + unit % 2 * 4 : unit * 4;
}

// The same with Act::rope, whose other four rows are half a head further.
__device__ __forceinline__ int rope_row(int head_dim, int unit) {
    const int per_head = head_dim / 8;
    return unit / per_head * head_dim + unit % per_head * 4;
}

__device__ __forceinline__ float4 load_bias(const float* bias, int first, int end) {
    float b[4] = {};
    if (bias) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (first + i < end) b[i] = bias[first + i];
    }
    return make_float4(b[0], b[1], b[2], b[3]);
}

// Asks for the biases of a block, which nobody has read since the last step.
__device__ __forceinline__ void prefetch_bias(const LinearParams& p, int block) {
    const int row = block * kBlockRows + threadIdx.x * 32;
    if (p.bias && threadIdx.x < kBlockRows / 32 && row < p.n)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(p.bias + row));
}

// Finishes one unit of a block for any number of tokens.
template <typename T>
class UnitEpilogue {
public:
    __device__ __forceinline__ UnitEpilogue(const LinearParams& p, int block, int unit) : p_(p) {
        const bool pairs = p.act == Act::silu_mul;
        feature_ = block * (pairs ? kBlockRows / 2 : kBlockRows) + unit * 4;
        n_features_ = pairs ? p.n / 2 : p.n;
        bias_ = load_bias(p.bias, feature_, n_features_);
        if (pairs) up_bias_ = load_bias(p.bias, n_features_ + feature_, p.n);
    }

    // `up_sums` matter after silu_mul only.
    __device__ __forceinline__ void finish(int token, float4 sums, float4 up_sums) const {
        float4 v = sums + bias_;
        if (p_.act == Act::silu_mul) {
            const float4 up = up_sums + up_bias_;
            v = make_float4(silu(v.x) * up.x, silu(v.y) * up.y, silu(v.z) * up.z, silu(v.w) * up.w);
        }
        if (p_.out == DType::f32) {
            store<float>(token, v);
        } else {
            store<T>(token, v);
        }
    }

private:
    template <typename Out>
    __device__ __forceinline__ void store(int token, float4 v) const {
        Out* y = static_cast<Out*>(p_.y) + token * p_.y_stride + feature_;
        const T* residual = static_cast<const T*>(p_.residual);
        if (residual) residual += token * p_.residual_stride + feature_;
        if (p_.vector && feature_ + 4 <= n_features_) {
            store4<Out>(y, residual ? v + load4(residual) : v);
            return;
        }
        const float value[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (feature_ + i < n_features_)
                y[i] = from_float<Out>(residual ? value[i] + to_float(residual[i]) : value[i]);
    }

    const LinearParams& p_;
    int feature_, n_features_;
    float4 bias_, up_bias_ = {};
};

// Act::rope of the elements [at, at + 4) of a head of q, k and v and of those half a head further.
template <typename T>
__device__ __forceinline__ void finish_rope(const LinearParams& p, int head, int at, int token, float4 a,
                                            float4 b) {
    const RopeTarget& r = p.rope;
    const int half = r.head_dim / 2, kv_head = head - r.n_heads;
    if (kv_head >= 2 * r.n_kv_heads) return;  // rows that pad the last block
    if (kv_head < r.n_kv_heads) {
        const float* angles = r.table + token * r.table_stride + at;
        const float4 c = *reinterpret_cast<const float4*>(angles);
        const float4 s = *reinterpret_cast<const float4*>(angles + half), x = a;
        a = make_float4(a.x * c.x - b.x * s.x, a.y * c.y - b.y * s.y, a.z * c.z - b.z * s.z,
                        a.w * c.w - b.w * s.w);
        b = make_float4(b.x * c.x + x.x * s.x, b.y * c.y + x.y * s.y, b.z * c.z + x.z * s.z,
                        b.w * c.w + x.w * s.w);
    }
    T* to;
    if (kv_head < 0) {
        to = static_cast<T*>(p.y) + token * p.y_stride + head * r.head_dim;
    } else {
        const int slot = r.slots[token];
        if (slot < 0) return;
        const bool is_key = kv_head < r.n_kv_heads;
        const int h = is_key ? kv_head : kv_head - r.n_kv_heads;
        to = static_cast<T*>(is_key ? r.k : r.v) + slot / r.block_size * r.block_elements +
             ((int64_t)h * r.block_size + slot % r.block_size) * r.head_dim;
    }
    store4<T>(to + at, a);
    store4<T>(to + at + half, b);
}

// The same as UnitEpilogue for Act::rope.
template <typename T>
class RopeEpilogue {
public:
    __device__ __forceinline__ RopeEpilogue(const LinearParams& p, int block, int unit) : p_(p) {
        const int feature = block * kBlockRows + rope_row(p.rope.head_dim, unit);
        head_ = feature / p.rope.head_dim;
        at_ = feature % p.rope.head_dim;
        bias_ = load_bias(p.bias, feature, p.n);
        far_bias_ = load_bias(p.bias, feature + p.rope.head_dim / 2, p.n);
    }

    __device__ __forceinline__ void finish(int token, float4 near, float4 far) const {
        finish_rope<T>(p_, head_, at_, token, near + bias_, far + far_bias_);
    }

private:
    const LinearParams& p_;
    int head_, at_;  // of q, k and v; first element
    float4 bias_, far_bias_;
};

}  // namespace rvllm::cuda
