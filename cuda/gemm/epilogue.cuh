// The end of a linear kernel: float32 sums become rows of y. Four neighbouring features of one
// token are a unit of work.
#pragma once
#include "device/convert.cuh"
#include "gemm/layout.h"
#include "gemm/params.h"

namespace rvllm::cuda {

__device__ __forceinline__ float silu(float v) {
    return v / (1.0f + __expf(-v));
}

__device__ __forceinline__ float4 operator+(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// Units per token and block of 128 stored rows: 32, or 16 after silu_mul.
__device__ __forceinline__ int epilogue_units(Act act) {
    return act == Act::silu_mul ? 16 : 32;
}

// First of the four stored rows of a unit, within its block; after silu_mul these are gates, and
// their up projections are 8 rows further.
__device__ __forceinline__ int unit_row(Act act, int unit) {
    return act == Act::silu_mul ? unit / 2 * 16 + unit % 2 * 4 : unit * 4;
}

// Finishes one unit of a block for any number of tokens.
template <typename T>
class UnitEpilogue {
public:
    __device__ __forceinline__ UnitEpilogue(const LinearParams& p, int block, int unit) : p_(p) {
        const bool pairs = p.act == Act::silu_mul;
        feature_ = block * (pairs ? kBlockRows / 2 : kBlockRows) + unit * 4;
        n_features_ = pairs ? p.n / 2 : p.n;
        bias_ = load_bias(0);
        if (pairs) up_bias_ = load_bias(n_features_);
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
    __device__ __forceinline__ float4 load_bias(int first) const {
        float b[4] = {};
        if (p_.bias) {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (feature_ + i < n_features_) b[i] = p_.bias[first + feature_ + i];
        }
        return make_float4(b[0], b[1], b[2], b[3]);
    }

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

}  // namespace rvllm::cuda
