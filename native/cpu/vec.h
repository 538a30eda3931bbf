// V: one vector of floats in the instruction set that the including file is compiled for.
//
// Included by the per-ISA files only. Everything is in an unnamed namespace: the same template
// compiled for two sets must never be merged by the linker. `load_n`/`store_n` touch the first n
// lanes and read the others as zero.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "half.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace rvllm {
namespace {

// Elements of a 16-bit cache or weight.
struct F16 {
    uint16_t bits;
};
struct Bf16 {
    uint16_t bits;
};

#if defined(__AVX512F__)

struct V {
    __m512 v;
};
constexpr int W = 16;

inline __mmask16 first_lanes(int n) {
    return static_cast<__mmask16>((1u << n) - 1);
}
inline V set1(float x) {
    return {_mm512_set1_ps(x)};
}
inline V load(const float* p) {
    return {_mm512_loadu_ps(p)};
}
inline V load_n(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(first_lanes(n), p)};
}
inline void store(float* p, V a) {
    _mm512_storeu_ps(p, a.v);
}
inline void store_n(float* p, V a, int n) {
    _mm512_mask_storeu_ps(p, first_lanes(n), a.v);
}
inline V add(V a, V b) {
    return {_mm512_add_ps(a.v, b.v)};
}
inline V sub(V a, V b) {
    return {_mm512_sub_ps(a.v, b.v)};
}
inline V mul(V a, V b) {
    return {_mm512_mul_ps(a.v, b.v)};
}
inline V div(V a, V b) {
    return {_mm512_div_ps(a.v, b.v)};
}
inline V fma(V a, V b, V c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline V max(V a, V b) {
    return {_mm512_max_ps(a.v, b.v)};
}  // b where either is NaN
inline V min(V a, V b) {
    return {_mm512_min_ps(a.v, b.v)};
}
inline float reduce_add(V a) {
    return _mm512_reduce_add_ps(a.v);
}
inline float reduce_max(V a) {
    return _mm512_reduce_max_ps(a.v);
}
inline V keep_n(V a, int n, float rest) {
    return {_mm512_mask_mov_ps(_mm512_set1_ps(rest), first_lanes(n), a.v)};
}
// p * 2^n for integral n
inline V scale_exponent(V p, V n) {
    return {_mm512_scalef_ps(p.v, n.v)};
}

inline V load(const Bf16* p) {
    const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}
inline V load(const F16* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline V load_n(const Bf16* p, int n) {
    const __m256i h = _mm256_maskz_loadu_epi16(first_lanes(n), p);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}
inline V load_n(const F16* p, int n) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p))};
}

inline void store_n(Bf16* p, V a, int n) {
    const __m512i u = _mm512_castps_si512(a.v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    const __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    const __m512i h = _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16);
    _mm256_mask_storeu_epi16(p, first_lanes(n), _mm512_cvtepi32_epi16(h));
}
inline void store_n(F16* p, V a, int n) {
    _mm256_mask_storeu_epi16(p, first_lanes(n),
                             _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#elif defined(__AVX2__)

struct V {
    __m256 v;
};
constexpr int W = 8;

inline __m256i first_lanes(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline V set1(float x) {
    return {_mm256_set1_ps(x)};
}
inline V load(const float* p) {
    return {_mm256_loadu_ps(p)};
}
inline V load_n(const float* p, int n) {
    return {_mm256_maskload_ps(p, first_lanes(n))};
}
inline void store(float* p, V a) {
    _mm256_storeu_ps(p, a.v);
}
inline void store_n(float* p, V a, int n) {
    _mm256_maskstore_ps(p, first_lanes(n), a.v);
}
inline V add(V a, V b) {
    return {_mm256_add_ps(a.v, b.v)};
}
inline V sub(V a, V b) {
    return {_mm256_sub_ps(a.v, b.v)};
}
inline V mul(V a, V b) {
    return {_mm256_mul_ps(a.v, b.v)};
}
inline V div(V a, V b) {
    return {_mm256_div_ps(a.v, b.v)};
}
inline V fma(V a, V b, V c) {
    return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
inline V max(V a, V b) {
    return {_mm256_max_ps(a.v, b.v)};
}
inline V min(V a, V b) {
    return {_mm256_min_ps(a.v, b.v)};
}
inline float reduce_add(V a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float reduce_max(V a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
inline V keep_n(V a, int n, float rest) {
    return {_mm256_blendv_ps(_mm256_set1_ps(rest), a.v, _mm256_castsi256_ps(first_lanes(n)))};
}
inline V scale_exponent(V p, V n) {  // in two steps: 2^n itself may be out of range
    const __m256i i = _mm256_cvtps_epi32(n.v);
    const __m256i half = _mm256_srai_epi32(i, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(i, half), bias), 23);
    return {_mm256_mul_ps(_mm256_mul_ps(p.v, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b))};
}

inline V widen(const Bf16*, __m128i h) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16))};
}
inline V widen(const F16*, __m128i h) {
    return {_mm256_cvtph_ps(h)};
}
template <class T>
inline V load(const T* p) {
    return widen(p, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
template <class T>
inline V load_n(const T* p, int n) {
    alignas(16) T part[W] = {};
    std::memcpy(part, p, n * sizeof(T));
    return load(part);
}

inline __m128i narrow(const Bf16*, V a) {
    const __m256i u = _mm256_castps_si256(a.v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const __m256 nan = _mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q);
    const __m256 chosen = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan);
    const __m256i h = _mm256_srli_epi32(_mm256_castps_si256(chosen), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}
inline __m128i narrow(const F16*, V a) {
    return _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT);
}
template <class T>
inline void store_n(T* p, V a, int n) {
    alignas(16) T part[W];
    _mm_store_si128(reinterpret_cast<__m128i*>(part), narrow(p, a));
    std::memcpy(p, part, n * sizeof(T));
}

#else

// Four lanes of the compilers' own vector type: SSE2, NEON or whatever the processor has.
typedef float float4 __attribute__((vector_size(16)));
typedef int32_t int4 __attribute__((vector_size(16)));

struct V {
    float4 v;
};
constexpr int W = 4;

inline V set1(float x) {
    return {float4{x, x, x, x}};
}
inline V load(const float* p) {
    V a;
    std::memcpy(&a, p, sizeof a);
    return a;
}
inline V load_n(const float* p, int n) {
    V a = set1(0);
    std::memcpy(&a, p, n * sizeof(float));
    return a;
}
inline void store(float* p, V a) {
    std::memcpy(p, &a, sizeof a);
}
inline void store_n(float* p, V a, int n) {
    std::memcpy(p, &a, n * sizeof(float));
}
inline V add(V a, V b) {
    return {a.v + b.v};
}
inline V sub(V a, V b) {
    return {a.v - b.v};
}
inline V mul(V a, V b) {
    return {a.v * b.v};
}
inline V div(V a, V b) {
    return {a.v / b.v};
}
#if defined(__aarch64__)
inline V fma(V a, V b, V c) {
    return {vfmaq_f32(c.v, a.v, b.v)};
}
#else
inline V fma(V a, V b, V c) {
    return {a.v * b.v + c.v};
}
#endif
inline V max(V a, V b) {
    return {a.v > b.v ? a.v : b.v};
}
inline V min(V a, V b) {
    return {a.v < b.v ? a.v : b.v};
}
inline float reduce_add(V a) {
    return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]);
}
inline float reduce_max(V a) {
    const float x = a.v[0] > a.v[2] ? a.v[0] : a.v[2];
    const float y = a.v[1] > a.v[3] ? a.v[1] : a.v[3];
    return x > y ? x : y;
}
inline V keep_n(V a, int n, float rest) {
    return {(int4{0, 1, 2, 3} < n) ? a.v : set1(rest).v};
}
inline V scale_exponent(V p, V n) {  // in two steps: 2^n itself may be out of range
    const int4 i = __builtin_convertvector(n.v, int4);
    const int4 half = i >> 1;
    const int4 a = (half + 127) << 23, b = (i - half + 127) << 23;
    V x, y;
    std::memcpy(&x, &a, sizeof x);
    std::memcpy(&y, &b, sizeof y);
    return mul(mul(p, x), y);
}

inline float widen(Bf16 h) {
    return bf16_to_f32(h.bits);
}
inline float widen(F16 h) {
    return f16_to_f32(h.bits);
}
inline void narrow(Bf16* p, float x) {
    p->bits = f32_to_bf16(x);
}
inline void narrow(F16* p, float x) {
    p->bits = f32_to_f16(x);
}
template <class T>
inline V load_n(const T* p, int n) {
    V a = set1(0);
    for (int i = 0; i < n; ++i) a.v[i] = widen(p[i]);
    return a;
}
template <class T>
inline V load(const T* p) {
    return load_n(p, W);
}
template <class T>
inline void store_n(T* p, V a, int n) {
    for (int i = 0; i < n; ++i) narrow(p + i, a.v[i]);
}

#endif

inline void prefetch(const void* p) {
    __builtin_prefetch(p, 0, 3);
}
inline V zero() {
    return set1(0);
}
inline int least(int64_t a, int64_t b) {
    return static_cast<int>(a < b ? a : b);
}

// e^x to about one unit in the last place, 0 below -104, infinity above 89; NaN stays NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r = 1 + r + r^2 P(r), P minimax of degree 4 (error 3e-9).
inline V exp(V x) {
    x = max(set1(-104.0f), min(set1(89.0f), x));
    const V shift = set1(0x1.8p23f);  // adding it rounds to an integer
    const V n = sub(fma(x, set1(0x1.715476p0f), shift), shift);
    V r = fma(n, set1(-0x1.62e400p-1f), x);
    r = fma(n, set1(-0x1.7f7d1cp-20f), r);
    V p = set1(0x1.6a23d0p-10f);
    p = fma(p, r, set1(0x1.123a20p-7f));
    p = fma(p, r, set1(0x1.5558f2p-5f));
    p = fma(p, r, set1(0x1.555492p-3f));
    p = fma(p, r, set1(0x1.fffffcp-2f));
    p = fma(mul(r, r), p, r);
    return scale_exponent(add(p, set1(1)), n);
}

}  // namespace
}  // namespace rvllm
