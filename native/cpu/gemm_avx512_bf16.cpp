// GEMM kernels with vdpbf16ps: activations are rounded to bfloat16 when they are packed, and each
// instruction adds the products of two k to 16 sums. 14 rows x 32 columns in 28 registers.
// GCC 12 takes the undefined operand inside its own intrinsics for a mistake (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "gemm_micro.h"

namespace rvllm {

namespace {

struct DotMath {
    using Reg = __m512;
    using A = uint32_t;  // a pair of k
    static constexpr int kLanes = 16;
    static constexpr int kWidth = 32;
    static constexpr int kGroup = 2;
    static constexpr int kAPerGroup = 1;
    static constexpr int64_t kGroupBytes = kWidth * 4;

    static RVLLM_INLINE Reg zero() { return _mm512_setzero_ps(); }
    static RVLLM_INLINE Reg load(const float* p) { return _mm512_loadu_ps(p); }
    static RVLLM_INLINE void store(float* p, Reg v) { _mm512_storeu_ps(p, v); }
    static RVLLM_INLINE Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }

    template <int kRows, int kPanels>
    static RVLLM_INLINE void step(const A* a, const char* w, size_t panel_bytes, Sums<DotMath, kRows, kPanels>& sums) {
        constexpr int kRegs = kWidth / kLanes;
        __m512bh b[kPanels * kRegs];
        RVLLM_UNROLL for (int c = 0; c < kPanels * kRegs; ++c) {
            b[c] = (__m512bh)_mm512_loadu_si512(w + c / kRegs * panel_bytes + 64 * (c % kRegs));
        }
        RVLLM_UNROLL for (int r = 0; r < kRows; ++r) {
            const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[r]));
            RVLLM_UNROLL for (int c = 0; c < kPanels * kRegs; ++c) {
                sums.at[r][c] = _mm512_dpbf16_ps(sums.at[r][c], x, b[c]);
            }
        }
    }
};

// Rows as bfloat16 pairs, [k / 2][row][2], zero-padded to a whole pair.
void pack_rows_bf16(const float* x, int64_t x_stride, int64_t k, int rows, void* a) {
    auto* to = static_cast<uint32_t*>(a);
    for (int r = 0; r < rows; ++r) {
        const float* from = x + r * x_stride;
        for (int64_t i = 0; i < k; i += 32) {
            const int64_t left = k - i;
            const __mmask16 low = left >= 16 ? 0xffff : (1u << left) - 1;
            const __mmask16 high = left >= 32 ? 0xffff : left > 16 ? (1u << (left - 16)) - 1 : 0;
            const __m512i pairs = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, from + i + 16),
                                                               _mm512_maskz_loadu_ps(low, from + i));
            if (rows == 1) {
                _mm512_mask_storeu_epi32(to + i / 2, left >= 32 ? 0xffff : (1u << (left + 1) / 2) - 1, pairs);
                continue;
            }
            alignas(64) uint32_t pair[16];
            _mm512_store_si512(pair, pairs);
            const int64_t n_pairs = left >= 32 ? 16 : (left + 1) / 2;
            for (int64_t p = 0; p < n_pairs; ++p) to[(i / 2 + p) * rows + r] = pair[p];
        }
    }
}

constexpr GemmKernels kBf16 = make_kernels<DotMath, 14, 4>("linear.bf16.avx512_bf16", pack_rows_bf16);

}  // namespace

const GemmKernels* gemm_kernels_avx512_bf16(DType weight) { return weight == DType::bf16 ? &kBf16 : nullptr; }

}  // namespace rvllm
