// Sixteen virtual lanes as two AVX2 registers. Same operations as lanes_portable.h.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "gather_x86.h"
#include "kernels.h"

namespace rvllm {
namespace {

constexpr int kChains = 2;  // exponentials side by side: what hides their latency and fits the registers

struct F {
    __m256 a, b;
};
struct Fixed {
    __m256i q[4];
};

inline F load(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
inline void store(float* p, F x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
inline F splat(float x) {
    return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
inline F add(F x, F y) {
    return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
inline F sub(F x, F y) {
    return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
inline F mul(F x, F y) {
    return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
inline F divide(F x, F y) {
    return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
inline F fma(F x, F y, F z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline F maximum(F x, F y) {
    return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
inline F minimum(F x, F y) {
    return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}

inline __m256 max_bits_8(__m256 x, __m256 y) {
    return _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(x), _mm256_castps_si256(y)));
}
inline F max_bits(F x, F y) {
    return {max_bits_8(x.a, y.a), max_bits_8(x.b, y.b)};
}
inline float largest(F x) {
    const __m256 m = _mm256_max_ps(x.a, x.b);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
// Lane i of the result: the largest of x[i].
inline F largest_each(const F (&x)[kLanes]) {
    __m256 pairs[8], quads[4];  // maxima of one to four of x, a few lanes each
    for (int i = 0; i < 8; ++i) {
        const __m256 a = _mm256_max_ps(x[2 * i].a, x[2 * i].b),
                     b = _mm256_max_ps(x[2 * i + 1].a, x[2 * i + 1].b);
        pairs[i] = _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    }
    for (int i = 0; i < 4; ++i) {
        const __m256d a = _mm256_castps_pd(pairs[2 * i]), b = _mm256_castps_pd(pairs[2 * i + 1]);
        quads[i] = _mm256_max_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
                                 _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
    }
    const auto halve = [](__m256 a, __m256 b) {
        return _mm256_max_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    };
    return {halve(quads[0], quads[1]), halve(quads[2], quads[3])};
}

template <int op>
inline uint32_t compare(F x, F y) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, op))) |
           static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, op))) << 8;
}
inline uint32_t ge(F x, F y) {
    return compare<_CMP_GE_OQ>(x, y);
}
inline uint32_t gt(F x, F y) {
    return compare<_CMP_GT_OQ>(x, y);
}
inline uint32_t eq(F x, F y) {
    return compare<_CMP_EQ_OQ>(x, y);
}
inline uint32_t unordered(F x, F y) {
    return compare<_CMP_UNORD_Q>(x, y);
}

inline __m256 expand_mask(uint32_t m) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i on = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(m)), bit);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(on, bit));
}
inline F select(uint32_t m, F x, F y) {
    return {_mm256_blendv_ps(y.a, x.a, expand_mask(m)), _mm256_blendv_ps(y.b, x.b, expand_mask(m >> 8))};
}
inline __m256 scale_half(__m256 x, __m256 shifted) {
    const __m256i k = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), k));
}
inline F scale_by(F x, F shifted) {
    return {scale_half(x.a, shifted.a), scale_half(x.b, shifted.b)};
}

inline __m256i load_8(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline F load_int(const int32_t* p) {
    return {_mm256_cvtepi32_ps(load_8(p)), _mm256_cvtepi32_ps(load_8(p + 8))};
}
inline void store_int(int32_t* p, F x) {  // towards zero
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_cvttps_epi32(x.a));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), _mm256_cvttps_epi32(x.b));
}
inline F gather(const float* p, const int32_t* index) {
    return {gather_8(p, index), gather_8(p, index + 8)};
}
inline F gather_int(const int32_t* p, const int32_t* index) {
    const F bits = gather(reinterpret_cast<const float*>(p), index);
    return {_mm256_cvtepi32_ps(_mm256_castps_si256(bits.a)), _mm256_cvtepi32_ps(_mm256_castps_si256(bits.b))};
}

inline Fixed zero_fixed() {
    const __m256i z = _mm256_setzero_si256();
    return {{z, z, z, z}};
}
inline __m256i quarter_to_fixed(__m128 x) {
    const __m256d shifted =
        _mm256_add_pd(_mm256_cvtps_pd(x), _mm256_set1_pd(6755399441055744.0));  // 1.5 * 2^52
    return _mm256_sub_epi64(_mm256_castpd_si256(shifted), _mm256_set1_epi64x(0x4338000000000000));
}
inline Fixed to_fixed(F x) {
    return {{quarter_to_fixed(_mm256_castps256_ps128(x.a)), quarter_to_fixed(_mm256_extractf128_ps(x.a, 1)),
             quarter_to_fixed(_mm256_castps256_ps128(x.b)), quarter_to_fixed(_mm256_extractf128_ps(x.b, 1))}};
}
inline Fixed add_fixed(Fixed x, Fixed y) {
    return {{_mm256_add_epi64(x.q[0], y.q[0]), _mm256_add_epi64(x.q[1], y.q[1]),
             _mm256_add_epi64(x.q[2], y.q[2]), _mm256_add_epi64(x.q[3], y.q[3])}};
}
inline uint64_t sum_fixed(Fixed x) {
    const __m256i s = _mm256_add_epi64(_mm256_add_epi64(x.q[0], x.q[1]), _mm256_add_epi64(x.q[2], x.q[3]));
    alignas(32) uint64_t v[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(v), s);
    return v[0] + v[1] + v[2] + v[3];
}
inline void store_fixed(uint64_t* p, Fixed x) {
    for (int i = 0; i < 4; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 4 * i), x.q[i]);
}

inline int64_t compress(float* val, int32_t* idx, const float* x, F, int32_t first, uint32_t m) {
    int64_t k = 0;
    for (; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        val[k] = x[l];
        idx[k++] = first + l;
    }
    return k;
}

}  // namespace
}  // namespace rvllm
