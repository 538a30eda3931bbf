// The CPU's resident layout of weights.
//
// Vectors: n float32. Dense [n, k]: panels of `width` rows, the last one padded. A panel holds, for
// every group of `group` consecutive k, that group of each of its rows: [k / group][width][group].
// RowOrder::gate_up: a panel of gates, then the panel of their up projections.
// A GEMM streams a panel once from end to end; the embedding reads one row out of the same bytes.
#pragma once
#include "../half.h"
#include "../weight.h"
#include "isa.h"
#include "pool.h"

namespace rvllm {

struct PanelLayout {
    int64_t width;  // weight rows in a panel
    int64_t group;  // k that lie together: 2 for bf16 (the operand of vdpbf16ps), else 1

    int64_t n_panels(int64_t n) const { return (n + width - 1) / width; }
    int64_t n_panels(int64_t n, RowOrder order) const {
        return order == RowOrder::gate_up ? 2 * n_panels(n / 2) : n_panels(n);
    }
    int64_t n_groups(int64_t k) const { return (k + group - 1) / group; }
    // Element of the panel that holds row `row % width` at k.
    int64_t index(int64_t row, int64_t k) const {
        return (k / group * width + row % width) * group + k % group;
    }
    size_t panel_bytes(int64_t k, DType t) const { return n_groups(k) * group * width * dtype_bytes(t); }
};

inline PanelLayout panel_layout(DType t, Isa set) {
    return {set >= Isa::avx512 ? 32 : 16, t == DType::bf16 ? 2 : 1};
}

// Element `i` of an array of float type `t`, as float32.
inline float load_f32(const void* p, DType t, int64_t i) {
    if (t == DType::f32) return static_cast<const float*>(p)[i];
    const uint16_t h = static_cast<const uint16_t*>(p)[i];
    return t == DType::bf16 ? bf16_to_f32(h) : f16_to_f32(h);
}

inline void store_f32(void* p, DType t, int64_t i, float f) {
    if (t == DType::f32) {
        static_cast<float*>(p)[i] = f;
    } else {
        static_cast<uint16_t*>(p)[i] = t == DType::bf16 ? f32_to_bf16(f) : f32_to_f16(f);
    }
}

// Resident bytes of a weight: from format, row order, dtype and shape alone.
size_t cpu_weight_bytes(const Weight* w);

// Writes rows [row, row + n_rows) of `w` from a row-major [n_rows, k] array of `src_dtype`, rounding to
// nearest even where w->dtype is narrower. w->data: cpu_weight_bytes() of it, 64-byte aligned. Rows
// that pad the last panel are not written. Nonzero: rows outside the weight or a type with no layout.
int cpu_pack(Weight* w, const void* src, DType src_dtype, int64_t row, int64_t n_rows, ThreadPool* pool);

// The inverse: rows [row, row + n_rows) as row-major float32.
int cpu_unpack(const Weight* w, float* dst, int64_t row, int64_t n_rows, ThreadPool* pool);

}  // namespace rvllm
