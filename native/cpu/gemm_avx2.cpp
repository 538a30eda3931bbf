// GEMM kernels for AVX2, FMA and F16C: 6 rows x 16 columns in 12 registers.
#include <immintrin.h>

#include "gemm_micro.h"

namespace rvllm {

namespace {

struct Vec {
    using Reg = __m256;
    static constexpr int kLanes = 8;
    static constexpr int kWidth = 16;

    static RVLLM_INLINE Reg zero() { return _mm256_setzero_ps(); }
    static RVLLM_INLINE Reg broadcast(float f) { return _mm256_set1_ps(f); }
    static RVLLM_INLINE Reg load(const float* p) { return _mm256_loadu_ps(p); }
    static RVLLM_INLINE void store(float* p, Reg v) { _mm256_storeu_ps(p, v); }
    static RVLLM_INLINE Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
    static RVLLM_INLINE Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
};

struct F32 {
    static constexpr int kGroup = 1, kBytes = 4;
    template <int>
    static RVLLM_INLINE __m256 load(const char* w, int c) {
        return _mm256_loadu_ps(reinterpret_cast<const float*>(w) + 8 * c);
    }
};

struct F16 {
    static constexpr int kGroup = 1, kBytes = 2;
    template <int>
    static RVLLM_INLINE __m256 load(const char* w, int c) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w) + c));
    }
};

struct Bf16 {
    static constexpr int kGroup = 2, kBytes = 2;
    // Eight pairs in 32-bit lanes: the first of a pair is the low half, the second is in place.
    template <int kPart>
    static RVLLM_INLINE __m256 load(const char* w, int c) {
        const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w) + c);
        return _mm256_castsi256_ps(kPart == 0 ? _mm256_slli_epi32(pairs, 16)
                                              : _mm256_and_si256(pairs, _mm256_set1_epi32(~0xffff)));
    }
};

template <class Weights>
constexpr GemmKernels table(const char* name) {
    using Math = FmaMath<Vec, Weights>;
    return make_kernels<Math, 6, 2>(name, pack_rows_f32<Math>);
}

constexpr GemmKernels kF32 = table<F32>("linear.f32.avx2");
constexpr GemmKernels kF16 = table<F16>("linear.f16.avx2");
constexpr GemmKernels kBf16 = table<Bf16>("linear.bf16.avx2");

}  // namespace

const GemmKernels* gemm_kernels_avx2(DType weight) {
    return weight == DType::bf16 ? &kBf16 : weight == DType::f16 ? &kF16 : &kF32;
}

}  // namespace rvllm
