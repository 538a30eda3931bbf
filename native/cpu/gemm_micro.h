// The micro-kernel of gemm.h, for every instruction set and weight type. Include it only from the
// files gemm_<set>.cpp: each compiles its own copy with its own flags. For the same reason nothing here
// may call an inline function of the library: the linker would keep one copy, for one set, for all.
//
// kRows x kPanels panels of y live in registers while k runs. A Math gives the registers and step():
// one group of k, every row times every register of weights.
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>

#include "gemm.h"

#define RVLLM_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define RVLLM_UNROLL _Pragma("unroll")
#else
#define RVLLM_UNROLL _Pragma("GCC unroll 32")
#endif

namespace rvllm {
namespace {

// Registers kRows x kRegs of partial sums.
template <class Math, int kRows, int kPanels>
struct Sums {
    static constexpr int kRegs = kPanels * Math::kWidth / Math::kLanes;
    typename Math::Reg at[kRows][kRegs];
};

template <class Math, int kRows, int kPanels>
RVLLM_INLINE void run_micro(const MicroArgs& m, float* y, int64_t y_stride) {
    constexpr int kRegs = Sums<Math, kRows, kPanels>::kRegs;
    Sums<Math, kRows, kPanels> sums;
    RVLLM_UNROLL for (int r = 0; r < kRows; ++r) {
        RVLLM_UNROLL for (int c = 0; c < kRegs; ++c) sums.at[r][c] = Math::zero();
    }
    if (m.resume) {
        RVLLM_UNROLL for (int r = 0; r < kRows; ++r) {
            RVLLM_UNROLL for (int c = 0; c < kRegs; ++c) {
                sums.at[r][c] = Math::load(y + r * y_stride + c * Math::kLanes);
            }
        }
    }
    auto* a = static_cast<const typename Math::A*>(m.a);
    auto* w = static_cast<const char*>(m.w);
    const char* ahead[2] = {m.prefetch[0].at, m.prefetch[1].at};
    for (int64_t g = 0; g < m.n_groups; ++g) {
        __builtin_prefetch(ahead[0], 0, 2);
        __builtin_prefetch(ahead[1], 0, 2);
        ahead[0] += m.prefetch[0].step;
        ahead[1] += m.prefetch[1].step;
        Math::template step<kRows, kPanels>(a, w, m.panel_bytes, sums);
        a += kRows * Math::kAPerGroup;
        w += Math::kGroupBytes;
    }
    RVLLM_UNROLL for (int r = 0; r < kRows; ++r) {
        RVLLM_UNROLL for (int c = 0; c < kRegs; ++c) {
            typename Math::Reg sum = sums.at[r][c];
            if (m.bias != nullptr) sum = Math::add(sum, Math::load(m.bias + c * Math::kLanes));
            Math::store(y + r * y_stride + c * Math::kLanes, sum);
        }
    }
}

template <class Math, int kRows, int kPanels>
void micro(const MicroArgs& m) {
    constexpr int64_t kCols = kPanels * Math::kWidth;
    if (m.n_cols == kCols) {
        run_micro<Math, kRows, kPanels>(m, m.y, m.y_stride);
        return;
    }
    // The last panel of a ragged n: through a full tile, of which y gets the columns that exist.
    float tile[kRows * kCols];
    float bias[kCols] = {};
    MicroArgs full = m;
    const size_t row_bytes = m.n_cols * sizeof(float);
    if (m.resume) {
        for (int r = 0; r < kRows; ++r) std::memcpy(tile + r * kCols, m.y + r * m.y_stride, row_bytes);
    }
    if (m.bias != nullptr) {
        std::memcpy(bias, m.bias, row_bytes);
        full.bias = bias;
    }
    run_micro<Math, kRows, kPanels>(full, tile, kCols);
    for (int r = 0; r < kRows; ++r) std::memcpy(m.y + r * m.y_stride, tile + r * kCols, row_bytes);
}

// Rows as float32, [k][row], zero-padded to a whole group.
template <class Math>
void pack_rows_f32(const float* x, int64_t x_stride, int64_t k, int rows, void* a) {
    float* to = static_cast<float*>(a);
    const int64_t padded = (k + Math::kGroup - 1) / Math::kGroup * Math::kGroup;
    constexpr int64_t kTile = 16;  // k at a time: the destination stays in the first-level cache
    for (int64_t i0 = 0; i0 < k; i0 += kTile) {
        const int64_t i1 = i0 + kTile < k ? i0 + kTile : k;
        for (int r = 0; r < rows; ++r) {
            const float* from = x + r * x_stride;
            for (int64_t i = i0; i < i1; ++i) to[i * rows + r] = from[i];
        }
    }
    for (int64_t i = k * rows; i < padded * rows; ++i) to[i] = 0;
}

template <class Math, int kMaxRows, int kMaxRowsWide, size_t... narrow, size_t... wide>
constexpr GemmKernels make_kernels(const char* name,
                                   void (*pack_rows)(const float*, int64_t, int64_t, int, void*),
                                   size_t a_bytes, std::index_sequence<narrow...>,
                                   std::index_sequence<wide...>) {
    return {name,    kMaxRows, kMaxRowsWide, {micro<Math, narrow + 1, 1>...}, {micro<Math, wide + 1, 2>...},
            a_bytes, pack_rows};
}

template <class Math, int kMaxRows, int kMaxRowsWide>
constexpr GemmKernels make_kernels(const char* name,
                                   void (*pack_rows)(const float*, int64_t, int64_t, int, void*)) {
    static_assert(kMaxRows <= kMaxMicroRows && kMaxRowsWide <= kMaxRows, "table size");
    constexpr size_t a_bytes = sizeof(typename Math::A) * Math::kAPerGroup / Math::kGroup;
    return make_kernels<Math, kMaxRows, kMaxRowsWide>(name, pack_rows, a_bytes,
                                                      std::make_index_sequence<kMaxRows>(),
                                                      std::make_index_sequence<kMaxRowsWide>());
}

// A Math of fused multiply-adds over float32 registers. Vec: registers and their arithmetic. Weights:
// the stored type; load<kPart>() gives register `c` of the kPart-th k of a group as float32.
template <class Vec, class Weights>
struct FmaMath : Vec {
    using typename Vec::Reg;
    using A = float;
    static constexpr int kGroup = Weights::kGroup;
    static constexpr int kAPerGroup = kGroup;
    static constexpr int64_t kGroupBytes = Vec::kWidth * Weights::kGroup * Weights::kBytes;

    template <int kPart, int kRows, int kPanels>
    static RVLLM_INLINE void part(const float* a, const char* w, size_t panel_bytes,
                                  Sums<FmaMath, kRows, kPanels>& sums) {
        constexpr int kRegs = Vec::kWidth / Vec::kLanes;
        Reg b[kPanels * kRegs];
        RVLLM_UNROLL for (int c = 0; c < kPanels * kRegs; ++c) {
            b[c] = Weights::template load<kPart>(w + c / kRegs * panel_bytes, c % kRegs);
        }
        RVLLM_UNROLL for (int r = 0; r < kRows; ++r) {
            const Reg x = Vec::broadcast(a[kPart * kRows + r]);
            RVLLM_UNROLL for (int c = 0; c < kPanels * kRegs; ++c) sums.at[r][c] =
                Vec::fma(x, b[c], sums.at[r][c]);
        }
    }

    template <int kRows, int kPanels>
    static RVLLM_INLINE void step(const float* a, const char* w, size_t panel_bytes,
                                  Sums<FmaMath, kRows, kPanels>& sums) {
        part<0, kRows, kPanels>(a, w, panel_bytes, sums);
        if constexpr (kGroup == 2) part<1, kRows, kPanels>(a, w, panel_bytes, sums);
    }
};

}  // namespace
}  // namespace rvllm
