// Tiles of keys and values as float32 in cache: keys transposed, so that a vector holds one column
// of several keys. For the instruction set of the including file.
#pragma once
#include "attention.h"
#include "vec.h"

namespace rvllm {
namespace {

// ---- W x W transposes of 32-bit units: one float, or two 16-bit elements ---------------------------
#if defined(__AVX512F__)

using Units = __m512i;
inline Units load_units(const void* p, int n) {
    return _mm512_maskz_loadu_epi32(first_lanes(n), p);
}

inline void transpose(Units (&r)[16]) {
    Units t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        for (int j = 0; j < 2; ++j) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    }
    // r[4 g + c] holds columns c, c + 4, c + 8, c + 12 of rows 4 g .. 4 g + 3
    for (int c = 0; c < 4; ++c) {
        t[c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
        t[4 + c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        t[8 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
    }
    for (int c = 0; c < 4; ++c) {
        r[c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0x88);
        r[c + 8] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0xdd);
        r[c + 4] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0x88);
        r[c + 12] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0xdd);
    }
}

inline V as_floats(Units u) {
    return {_mm512_castsi512_ps(u)};
}
inline V even(const Bf16*, Units u) {
    return as_floats(_mm512_slli_epi32(u, 16));
}
inline V odd(const Bf16*, Units u) {
    return as_floats(_mm512_and_si512(u, _mm512_set1_epi32(-65536)));
}
inline V even(const F16*, Units u) {
    return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(u))};
}
inline V odd(const F16*, Units u) {
    return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(u, 16)))};
}

#elif defined(__AVX2__)

using Units = __m256i;
inline Units load_units(const void* p, int n) {
    return _mm256_maskload_epi32(static_cast<const int*>(p), first_lanes(n));
}

inline void transpose(Units (&r)[8]) {
    Units t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        for (int j = 0; j < 2; ++j) {
            r[i + 2 * j] = _mm256_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm256_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    }
    for (int c = 0; c < 4; ++c) {
        t[c] = _mm256_permute2x128_si256(r[c], r[4 + c], 0x20);
        t[4 + c] = _mm256_permute2x128_si256(r[c], r[4 + c], 0x31);
    }
    for (int c = 0; c < 8; ++c) r[c] = t[c];
}

inline V as_floats(Units u) {
    return {_mm256_castsi256_ps(u)};
}
inline __m128i low_halves(Units u) {
    const Units low = _mm256_and_si256(u, _mm256_set1_epi32(0xffff));
    return _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
}
inline V even(const Bf16*, Units u) {
    return as_floats(_mm256_slli_epi32(u, 16));
}
inline V odd(const Bf16*, Units u) {
    return as_floats(_mm256_and_si256(u, _mm256_set1_epi32(-65536)));
}
inline V even(const F16*, Units u) {
    return {_mm256_cvtph_ps(low_halves(u))};
}
inline V odd(const F16*, Units u) {
    return {_mm256_cvtph_ps(low_halves(_mm256_srli_epi32(u, 16)))};
}

#endif

#if defined(__AVX2__)

inline void store_units(const float*, Units u, float* out) {
    store(out, as_floats(u));
}
template <class T>
inline void store_units(const T* type, Units u, float* out) {
    store(out, even(type, u));
    store(out + kTileKeys, odd(type, u));
}

// tile[d][j] = keys[j][d] for the first n keys, rounded up to whole vectors. Fetches `next`, the keys
// of the tile to come, along the way: they lie in blocks all over memory.
template <class T>
inline void transpose_keys(const T* const* keys, const T* const* next, int n, int head_dim, float* tile) {
    constexpr int kUnit = 4 / sizeof(T);  // elements
    for (int j = 0; j < n; j += W) {
        for (int d = 0; d < head_dim; d += W * kUnit) {
            const int n_units = least(W, (head_dim - d) / kUnit);
            Units r[W];
            for (int i = 0; i < W; ++i) {
                r[i] = load_units(keys[j + i] + d, n_units);
                prefetch(next[j + i] + d);
            }
            transpose(r);
            for (int i = 0; i < n_units; ++i)
                store_units(keys[0], r[i], tile + (d + i * kUnit) * kTileKeys + j);
        }
    }
}

#else

inline float widen(float x) {
    return x;
}

template <class T>
inline void transpose_keys(const T* const* keys, const T* const*, int n, int head_dim, float* tile) {
    for (int j = 0; j < (n + W - 1) / W * W; ++j) {
        for (int d = 0; d < head_dim; ++d) tile[d * kTileKeys + j] = widen(keys[j][d]);
    }
}

#endif

// tile[j][d] = values[j][d], rows padded with zeros to `padded` columns.
template <class T>
inline void widen_values(const T* const* values, const T* const* next, int n, int head_dim, int padded,
                         float* tile) {
    for (int j = 0; j < n; ++j) {
        int d = 0;
        for (; d + W <= head_dim; d += W) {
            store(tile + j * padded + d, load(values[j] + d));
            prefetch(next[j] + d);
        }
        for (; d < padded; d += W) {
            const int rest = head_dim - d > 0 ? head_dim - d : 0;
            store(tile + j * padded + d, load_n(values[j] + d, rest));
        }
    }
}

}  // namespace
}  // namespace rvllm
