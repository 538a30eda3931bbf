// GEMM kernels in portable C++: vector types of 4 floats (SSE2, NEON), conversions in scalar code.
#include "../half.h"
#include "gemm_micro.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace rvllm {

namespace {

struct Vec {
    typedef float Reg __attribute__((vector_size(16)));
    static constexpr int kLanes = 4;
    static constexpr int kWidth = 16;

    static RVLLM_INLINE Reg zero() { return Reg{}; }
    static RVLLM_INLINE Reg broadcast(float f) { return Reg{f, f, f, f}; }
    static RVLLM_INLINE Reg load(const float* p) {
        Reg v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
    static RVLLM_INLINE void store(float* p, Reg v) { std::memcpy(p, &v, sizeof v); }
    static RVLLM_INLINE Reg add(Reg a, Reg b) { return a + b; }
    static RVLLM_INLINE Reg fma(Reg a, Reg b, Reg c) {
#if defined(__aarch64__)
        return vfmaq_f32(c, a, b);
#else
        return a * b + c;
#endif
    }
};

struct F32 {
    static constexpr int kGroup = 1, kBytes = 4;
    template <int>
    static RVLLM_INLINE Vec::Reg load(const char* w, int c) {
        return Vec::load(reinterpret_cast<const float*>(w) + 4 * c);
    }
};

struct F16 {
    static constexpr int kGroup = 1, kBytes = 2;
    template <int>
    static RVLLM_INLINE Vec::Reg load(const char* w, int c) {
        auto* h = reinterpret_cast<const uint16_t*>(w) + 4 * c;
#if defined(__aarch64__)
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h)));
#else
        return Vec::Reg{f16_to_f32(h[0]), f16_to_f32(h[1]), f16_to_f32(h[2]), f16_to_f32(h[3])};
#endif
    }
};

struct Bf16 {
    static constexpr int kGroup = 2, kBytes = 2;
    // Four pairs in 32-bit lanes: the first of a pair is the low half, the second is in place.
    template <int kPart>
    static RVLLM_INLINE Vec::Reg load(const char* w, int c) {
        typedef uint32_t Pairs __attribute__((vector_size(16)));
        Pairs p;
        std::memcpy(&p, w + 16 * c, sizeof p);
        p = kPart == 0 ? p << 16 : p & 0xffff0000u;
        Vec::Reg v;
        std::memcpy(&v, &p, sizeof v);
        return v;
    }
};

#if defined(__aarch64__)
constexpr int kRows = 5, kRowsWide = 2;
#else
constexpr int kRows = 3, kRowsWide = 1;
#endif

template <class Weights>
constexpr GemmKernels table(const char* name) {
    using Math = FmaMath<Vec, Weights>;
    return make_kernels<Math, kRows, kRowsWide>(name, pack_rows_f32<Math>);
}

constexpr GemmKernels kF32 = table<F32>("linear.f32.generic");
constexpr GemmKernels kF16 = table<F16>("linear.f16.generic");
constexpr GemmKernels kBf16 = table<Bf16>("linear.bf16.generic");

}  // namespace

const GemmKernels* gemm_kernels_generic(DType weight) {
    return weight == DType::bf16 ? &kBf16 : weight == DType::f16 ? &kF16 : &kF32;
}

}  // namespace rvllm
