// GEMM kernels for AVX512 without bfloat16 products: 14 rows x 32 columns in 28 registers.
// GCC 12 takes the undefined operand inside its own intrinsics for a mistake (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "gemm_micro.h"

namespace rvllm {

namespace {

struct Vec {
    using Reg = __m512;
    static constexpr int kLanes = 16;
    static constexpr int kWidth = 32;

    static RVLLM_INLINE Reg zero() { return _mm512_setzero_ps(); }
    static RVLLM_INLINE Reg broadcast(float f) { return _mm512_set1_ps(f); }
    static RVLLM_INLINE Reg load(const float* p) { return _mm512_loadu_ps(p); }
    static RVLLM_INLINE void store(float* p, Reg v) { _mm512_storeu_ps(p, v); }
    static RVLLM_INLINE Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
    static RVLLM_INLINE Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
};

struct F32 {
    static constexpr int kGroup = 1, kBytes = 4;
    template <int>
    static RVLLM_INLINE __m512 load(const char* w, int c) {
        return _mm512_loadu_ps(reinterpret_cast<const float*>(w) + 16 * c);
    }
};

struct F16 {
    static constexpr int kGroup = 1, kBytes = 2;
    template <int>
    static RVLLM_INLINE __m512 load(const char* w, int c) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w) + c));
    }
};

struct Bf16 {
    static constexpr int kGroup = 2, kBytes = 2;
    // Sixteen pairs in 32-bit lanes: the first of a pair is the low half, the second is in place.
    template <int kPart>
    static RVLLM_INLINE __m512 load(const char* w, int c) {
        const __m512i pairs = _mm512_loadu_si512(w + 64 * c);
        return _mm512_castsi512_ps(kPart == 0 ? _mm512_slli_epi32(pairs, 16)
                                              : _mm512_and_si512(pairs, _mm512_set1_epi32(~0xffff)));
    }
};

template <class Weights, int kRows>
constexpr GemmKernels table(const char* name) {
    using Math = FmaMath<Vec, Weights>;
    return make_kernels<Math, kRows, 4>(name, pack_rows_f32<Math>);
}

constexpr GemmKernels kF32 = table<F32, 14>("linear.f32.avx512");
constexpr GemmKernels kF16 = table<F16, 14>("linear.f16.avx512");
constexpr GemmKernels kBf16 = table<Bf16, 14>("linear.bf16.avx512");

}  // namespace

const GemmKernels* gemm_kernels_avx512(DType weight) {
    return weight == DType::bf16 ? &kBf16 : weight == DType::f16 ? &kF16 : &kF32;
}

}  // namespace rvllm
