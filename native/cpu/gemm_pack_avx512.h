// Packing of activations with AVX512: 16 rows x 16 lanes of 32 bits turned at a time. Include it only
// from gemm_avx512*.cpp.
#pragma once
#include "gemm_micro.h"

#define RVLLM_INLINE_LAMBDA __attribute__((always_inline))

namespace rvllm {
namespace {

// 16 registers of 16 lanes: row r becomes lane r of every register.
RVLLM_INLINE void transpose(__m512i (&v)[16]) {
    __m512i t[16];
    RVLLM_UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    RVLLM_UNROLL for (int i = 0; i < 16; i += 4) {
        RVLLM_UNROLL for (int j = 0; j < 2; ++j) {
            v[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            v[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    }
    // v[4 q + j] holds column 4 l + j of rows 4 q .. 4 q + 3 in its 128-bit lane l: transpose the lanes.
    RVLLM_UNROLL for (int j = 0; j < 4; ++j) {
        const __m512i even_low = _mm512_shuffle_i32x4(v[j], v[4 + j], 0x88);
        const __m512i odd_low = _mm512_shuffle_i32x4(v[j], v[4 + j], 0xdd);
        const __m512i even_high = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0x88);
        const __m512i odd_high = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0xdd);
        v[j] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
        v[4 + j] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
        v[8 + j] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
        v[12 + j] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
    }
}

// a[lane][row] for `n_lanes` lanes; load(row, lane) gives 16 lanes of a row, zero where k has ended.
template <class Load>
RVLLM_INLINE void pack_lanes(int64_t n_lanes, int rows, uint32_t* a, const Load& load) {
    const auto exist = static_cast<__mmask16>((1u << rows) - 1);
    for (int64_t lane = 0; lane < n_lanes; lane += 16) {
        const int64_t n = n_lanes - lane < 16 ? n_lanes - lane : 16;
        if (rows == 1) {
            _mm512_mask_storeu_epi32(a + lane, static_cast<__mmask16>((1u << n) - 1), load(0, lane));
            continue;
        }
        __m512i v[16];
        RVLLM_UNROLL for (int r = 0; r < 16; ++r) v[r] = r < rows ? load(r, lane) : _mm512_setzero_si512();
        transpose(v);
        RVLLM_UNROLL for (int p = 0; p < 16; ++p) {
            if (p < n) _mm512_mask_storeu_epi32(a + (lane + p) * rows, exist, v[p]);
        }
    }
}

}  // namespace
}  // namespace rvllm
