// From a logit to its weight, and the order of tokens: what native/simd/kernels.{h,inl} and order.h compute,
// bit for bit. Compiled without contraction; every FMA is written out.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstdint>

namespace rvllm::cuda {

constexpr int kFixedBits = 40;         // binary places of a weight
constexpr double kGreedyBelow = 1e-5;  // temperatures under it mean greedy
constexpr double kLog2E = 1.4426950408889634074;
constexpr float kNothing = -INFINITY;

// Ascending keys are descending values. -0 equals 0.
__device__ __forceinline__ uint32_t order_key(float value) {
    const uint32_t bits = __float_as_uint(value + 0.0f);
    return bits ^ (bits >> 31 ? 0u : 0x7fffffffu);
}
__device__ __forceinline__ float key_value(uint32_t key) {
    return __uint_as_float(key ^ (key >> 31 ? 0u : 0x7fffffffu));
}
__device__ __forceinline__ uint64_t token_key(float value, int32_t token) {
    return static_cast<uint64_t>(order_key(value)) << 32 | static_cast<uint32_t>(token);
}
__device__ __forceinline__ float value_of(uint64_t key) {
    return key_value(static_cast<uint32_t>(key >> 32));
}
__device__ __forceinline__ int32_t token_of(uint64_t key) {
    return static_cast<int32_t>(static_cast<uint32_t>(key));
}

// round(2^40 * 2^(x*c - m))
struct Weigh {
    float base, d_min, c_hi, c_lo, magic;

    __device__ __forceinline__ uint64_t operator()(float x) const {
        const float distance = x - base;
        const float d = distance > d_min ? distance : d_min;
        const float shifted = __fmaf_rn(d, c_hi, magic);
        const float f = __fmaf_rn(d, c_lo, __fmaf_rn(d, c_hi, magic - shifted));
        float p = 0.000154626107578f;
        p = __fmaf_rn(p, f, 0.00134017751254f);
        p = __fmaf_rn(p, f, 0.00961805373433f);
        p = __fmaf_rn(p, f, 0.0555032382582f);
        p = __fmaf_rn(p, f, 0.240226509362f);
        p = __fmaf_rn(p, f, 0.693147208313f);
        p = __fmaf_rn(p, f, 1.0f);
        return __float2ull_rn(__uint_as_float(__float_as_uint(p) + (__float_as_uint(shifted) << 23)));
    }
};

// exp_params() of one row.
struct Exponents {
    double c, m;
    double slack;  // bound of a weight's relative error before rounding to fixed point
    Weigh weigh;

    __device__ static Exponents of(float max, double temperature) {
        Exponents e;
        e.c = kLog2E / fmin(temperature, 1e30);
        const double top = max * e.c;
        const bool plain = fabs(top) <= 65536;
        e.m = plain ? rint(top) : 0.0;
        e.slack = plain ? 1.3e-7 : 3e-6;
        e.weigh.base = plain ? 0.0f : max;
        e.weigh.c_hi = static_cast<float>(e.c);
        e.weigh.c_lo = static_cast<float>(e.c - e.weigh.c_hi);
        e.weigh.magic = static_cast<float>(12582912.0 + kFixedBits - e.m);
        e.weigh.d_min = static_cast<float>(fmax((e.m - 64) / e.c, -static_cast<double>(FLT_MAX)));
        return e;
    }

    // 2^60 * 2^(x*c - m) from float64, towards zero
    __device__ uint64_t exact_weight(float x) const {
        constexpr double magic64 = 6755399441055744.0;  // 1.5 * 2^52
        const double distance = static_cast<double>(x) - weigh.base, floor = (m - 1000) / c;
        const double d = distance > floor ? distance : floor;
        const double shifted = __fma_rn(d, c, magic64 - m);
        const double f = __fma_rn(d, c, (magic64 - m) - shifted);
        double p = 4.0780451108401166017e-10;
        p = __fma_rn(p, f, 7.0725702206402868234e-9);
        p = __fma_rn(p, f, 1.0180647844774274317e-7);
        p = __fma_rn(p, f, 1.3215442676553933548e-6);
        p = __fma_rn(p, f, 0.000015252727384740496593);
        p = __fma_rn(p, f, 0.00015403530441569449913);
        p = __fma_rn(p, f, 0.0013333558153440419234);
        p = __fma_rn(p, f, 0.0096181291076070046525);
        p = __fma_rn(p, f, 0.055504108664790392983);
        p = __fma_rn(p, f, 0.24022650695910098001);
        p = __fma_rn(p, f, 0.69314718055994569676);
        p = __fma_rn(p, f, 1.0);
        const uint64_t k = static_cast<uint64_t>(__double_as_longlong(shifted));
        const double w = __longlong_as_double(__double_as_longlong(p) + static_cast<int64_t>(k << 52));
        return static_cast<uint64_t>(__double2ll_rz(w * 1152921504606846976.0));  // 2^60
    }
};

// A sum of exact weights, in two halves.
struct ExactSum {
    uint64_t high, low;
    __device__ void add(uint64_t w) {
        high += w >> 32;
        low += w & 0xffffffffu;
    }
    __device__ ExactSum plus(const ExactSum& o) const { return {high + o.high, low + o.low}; }
    __device__ double value() const {
        return static_cast<double>(high + (low >> 32)) * 4294967296.0 +
               static_cast<double>(low & 0xffffffffu);
    }
};

// 2^x, nearly.
__device__ __forceinline__ float rough_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

constexpr int32_t kEveryToken = 0x7fffffff;

// What stays of a row: values above `value`, and those equal to it up to token `last`.
struct Cut {
    float value;
    int32_t last;
    __device__ __forceinline__ bool keeps(float x, int32_t token) const {
        return x > value || (x == value && token <= last);
    }
};

}  // namespace rvllm::cuda
