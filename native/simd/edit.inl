// Changes to whole rows, and 16-bit formats.
#pragma once
#include "../half.h"
#include "vectors.inl"

namespace rvllm {
namespace {

void scale(float* x, int64_t n, float by) {
    const F b = splat(by);
    map(x, x, n, [&](F a) { return mul(a, b); });
}

void divide(float* x, int64_t n, float by) {
    const F b = splat(by);
    map(x, x, n, [&](F a) { return divide(a, b); });
}

void subtract(const float* x, int64_t n, float first, float second, float* y) {
    const F a = splat(first), b = splat(second);
    map(x, y, n, [&](F v) { return sub(sub(v, a), b); });
}

int64_t mask(float* x, int64_t n, float value, int64_t last) {
    const F v = splat(value), lowest = splat(kLowest);
    int64_t kept = 0;
    const auto part = [&](int64_t begin, int64_t end, bool ties) {
        each_vector(x, begin, end, kLowest, [&](F a, int64_t at, int lanes) {
            const uint32_t keep = (ties ? ge(a, v) : gt(a, v)) & lanes_below(lanes);
            kept += __builtin_popcount(keep);
            const F r = select(keep, a, lowest);
            if (lanes == kLanes) {
                store(x + at, r);
            } else {
                store_part(x + at, lanes, r);
            }
        });
    };
    const int64_t split = smaller(n, last + 1);
    part(0, split, true);
    part(split, n, false);
    return kept;
}

void mask_bits(float* x, int64_t n, const int32_t* bits, int64_t n_words) {
    const F lowest = splat(kLowest);
    for (int64_t i = 0; i < n; i += kLanes) {
        const uint32_t word = i / 32 < n_words ? static_cast<uint32_t>(bits[i / 32]) : 0;
        const uint32_t keep = word >> (i % 32) & 0xffff;
        if (i + kLanes <= n) {
            if (keep != 0xffff) store(x + i, select(keep, load(x + i), lowest));
        } else {
            store_part(x + i, n - i, select(keep, load_part(x + i, n - i, 0), lowest));
        }
    }
}

// ---- 16-bit formats -----------------------------------------------------------------------------
void from_half(const uint16_t* src, int64_t n, float* dst) {
    int64_t i = 0;
#ifdef __F16C__
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(dst + i,
                         _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i))));
    }
#endif
    for (; i < n; ++i) dst[i] = f16_to_f32(src[i]);
}

void to_half(const float* src, int64_t n, uint16_t* dst) {
    int64_t i = 0;
#ifdef __F16C__
    for (; i + 8 <= n; i += 8) {
        const __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i), h);
    }
#endif
    for (; i < n; ++i) dst[i] = f32_to_f16(src[i]);
}

void from_bfloat(const uint16_t* src, int64_t n, float* dst) {
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t bits = static_cast<uint32_t>(src[i]) << 16;
        std::memcpy(dst + i, &bits, 4);
    }
}

void to_bfloat(const float* src, int64_t n, uint16_t* dst) {
    for (int64_t i = 0; i < n; ++i) {
        uint32_t u;
        std::memcpy(&u, src + i, 4);
        const uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16, quiet = u >> 16 | 0x40;
        dst[i] = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
    }
}

}  // namespace
}  // namespace rvllm
