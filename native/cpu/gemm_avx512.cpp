// GEMM kernels for AVX512 without bfloat16 products: 14 rows x 32 columns in 28 registers.
#include <immintrin.h>

#include "gemm_micro.h"
#include "gemm_pack_avx512.h"

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

// Rows as float32, [k][row], zero-padded to a whole group.
template <int kGroup>
void pack_rows(const float* x, int64_t x_stride, int64_t k, int rows, void* a) {
    pack_lanes((k + kGroup - 1) / kGroup * kGroup, rows, static_cast<uint32_t*>(a),
               [=](int row, int64_t lane) RVLLM_INLINE_LAMBDA {
                   const float* from = x + row * x_stride + lane;
                   const int64_t left = k - lane;
                   return _mm512_castps_si512(
                       left >= 16 ? _mm512_loadu_ps(from)
                                  : _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << left) - 1), from));
               });
}

template <class Weights>
constexpr GemmKernels table(const char* name) {
    return make_kernels<FmaMath<Vec, Weights>, 14, 4>(name, pack_rows<Weights::kGroup>);
}

constexpr GemmKernels kF32 = table<F32>("linear.f32.avx512");
constexpr GemmKernels kF16 = table<F16>("linear.f16.avx512");
constexpr GemmKernels kBf16 = table<Bf16>("linear.bf16.avx512");

}  // namespace

const GemmKernels* gemm_kernels_avx512(DType weight) {
    return weight == DType::bf16 ? &kBf16 : weight == DType::f16 ? &kF16 : &kF32;
}

}  // namespace rvllm
