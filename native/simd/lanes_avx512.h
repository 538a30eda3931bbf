// Sixteen virtual lanes as one AVX512 register. Same operations as lanes_portable.h.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "gather_x86.h"
#include "kernels.h"

namespace rvllm {
namespace {

constexpr int kChains = 4;  // exponentials side by side: what hides their latency and fits the registers

using F = __m512;
struct Fixed {
    __m512i a, b;
};

inline F load(const float* p) {
    return _mm512_loadu_ps(p);
}
inline void store(float* p, F x) {
    _mm512_storeu_ps(p, x);
}
inline F splat(float x) {
    return _mm512_set1_ps(x);
}
inline F add(F x, F y) {
    return _mm512_add_ps(x, y);
}
inline F sub(F x, F y) {
    return _mm512_sub_ps(x, y);
}
inline F mul(F x, F y) {
    return _mm512_mul_ps(x, y);
}
inline F divide(F x, F y) {
    return _mm512_div_ps(x, y);
}
inline F fma(F x, F y, F z) {
    return _mm512_fmadd_ps(x, y, z);
}
inline F maximum(F x, F y) {
    return _mm512_max_ps(x, y);
}
inline F minimum(F x, F y) {
    return _mm512_min_ps(x, y);
}
inline float largest(F x) {
    return _mm512_reduce_max_ps(x);
}
// Lane i of the result: the largest of x[i].
inline F largest_each(const F (&x)[kLanes]) {
    F pairs[8], quads[4];  // maxima of one to four of x, a few lanes each
    for (int i = 0; i < 8; ++i) {
        const F a = x[2 * i], b = x[2 * i + 1];
        pairs[i] = _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
    for (int i = 0; i < 4; ++i) {
        const __m512d a = _mm512_castps_pd(pairs[2 * i]), b = _mm512_castps_pd(pairs[2 * i + 1]);
        quads[i] = _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                                 _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    const auto halve = [](F a, F b) {
        return _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    return halve(halve(quads[0], quads[1]), halve(quads[2], quads[3]));
}
inline F max_bits(F x, F y) {
    return _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(x), _mm512_castps_si512(y)));
}
inline uint32_t ge(F x, F y) {
    return _mm512_cmp_ps_mask(x, y, _CMP_GE_OQ);
}
inline uint32_t gt(F x, F y) {
    return _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ);
}
inline uint32_t eq(F x, F y) {
    return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ);
}
inline uint32_t unordered(F x, F y) {
    return _mm512_cmp_ps_mask(x, y, _CMP_UNORD_Q);
}
inline F select(uint32_t m, F x, F y) {
    return _mm512_mask_blend_ps(static_cast<__mmask16>(m), y, x);
}
inline F scale_by(F x, F shifted) {
    const __m512i k = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), k));
}

inline F load_int(const int32_t* p) {
    return _mm512_cvtepi32_ps(_mm512_loadu_si512(p));
}
inline void store_int(int32_t* p, F x) {
    _mm512_storeu_si512(p, _mm512_cvttps_epi32(x));
}  // towards zero
inline F gather(const float* p, const int32_t* index) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(gather_8(p, index)), gather_8(p, index + 8), 1);
}
inline F gather_int(const int32_t* p, const int32_t* index) {
    return _mm512_cvtepi32_ps(_mm512_castps_si512(gather(reinterpret_cast<const float*>(p), index)));
}

inline Fixed zero_fixed() {
    return {_mm512_setzero_si512(), _mm512_setzero_si512()};
}
inline Fixed to_fixed(F x) {
    return {_mm512_cvtps_epi64(_mm512_castps512_ps256(x)), _mm512_cvtps_epi64(_mm512_extractf32x8_ps(x, 1))};
}
inline Fixed add_fixed(Fixed x, Fixed y) {
    return {_mm512_add_epi64(x.a, y.a), _mm512_add_epi64(x.b, y.b)};
}
inline uint64_t sum_fixed(Fixed x) {
    return static_cast<uint64_t>(_mm512_reduce_add_epi64(_mm512_add_epi64(x.a, x.b)));
}
inline void store_fixed(uint64_t* p, Fixed x) {
    _mm512_storeu_si512(p, x.a);
    _mm512_storeu_si512(p + 8, x.b);
}

inline int64_t compress(float* val, int32_t* idx, const float*, F x, int32_t first, uint32_t m) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_add_epi32(_mm512_set1_epi32(first), lane);
    _mm512_storeu_ps(val, _mm512_maskz_compress_ps(static_cast<__mmask16>(m), x));
    _mm512_storeu_si512(idx, _mm512_maskz_compress_epi32(static_cast<__mmask16>(m), index));
    return __builtin_popcount(m);
}

}  // namespace
}  // namespace rvllm
