// GEMM kernels with vdpbf16ps: activations are rounded to bfloat16 when they are packed, and each
// instruction adds the products of two k to 16 sums. 14 rows x 32 columns in 28 registers.
#include <immintrin.h>

#include "gemm_micro.h"
#include "gemm_pack_avx512.h"

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
    static RVLLM_INLINE void step(const A* a, const char* w, size_t panel_bytes,
                                  Sums<DotMath, kRows, kPanels>& sums) {
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

// 32 k of one row as 16 bfloat16 pairs; `left` of them exist, the others are zero.
RVLLM_INLINE __m512i load_pairs(const float* x, int64_t left) {
    if (left >= 32) return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
    const __mmask32 exist = (1u << left) - 1;
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(static_cast<__mmask16>(exist >> 16), x + 16),
                                        _mm512_maskz_loadu_ps(static_cast<__mmask16>(exist), x));
}

// Rows as bfloat16 pairs, [k / 2][row][2], zero-padded to a whole pair.
void pack_rows_bf16(const float* x, int64_t x_stride, int64_t k, int rows, void* a) {
    pack_lanes((k + 1) / 2, rows, static_cast<uint32_t*>(a), [=](int row, int64_t lane) RVLLM_INLINE_LAMBDA {
        return load_pairs(x + row * x_stride + 2 * lane, k - 2 * lane);
    });
}

constexpr GemmKernels kBf16 = make_kernels<DotMath, 14, 4>("linear.bf16.avx512_bf16", pack_rows_bf16);

}  // namespace

const GemmKernels* gemm_kernels_avx512_bf16(DType weight) {
    return weight == DType::bf16 ? &kBf16 : nullptr;
}

}  // namespace rvllm
