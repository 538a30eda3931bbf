// cpu_pack(), cpu_unpack(): row-major host arrays into panels and back.
//
// One panel is one piece of work. Its rows are read a cache line at a time, so that the part of the
// panel written meanwhile stays in the first-level cache: the cost is that of reading and writing memory.
#include "pack.h"

#include <algorithm>

namespace rvllm {

namespace {

constexpr int64_t kTile = 32;  // k per pass over the rows of a panel

bool fits(const Weight* w, int64_t row, int64_t n_rows) {
    return row >= 0 && n_rows >= 0 && row + n_rows <= w->n && w->dtype != DType::i32;
}

// Moves rows [begin, end) of one panel; `src` is row `begin`.
template <class Element, int group>
void copy_rows(Element* panel, int64_t width, const Element* src, int64_t k, int64_t begin, int64_t end) {
    for (int64_t k0 = 0; k0 < k; k0 += kTile) {
        const int64_t k1 = std::min(k, k0 + kTile) / group * group;
        for (int64_t r = begin; r < end; ++r) {
            const Element* from = src + (r - begin) * k;
            Element* to = panel + r % width * group;
            for (int64_t i = k0; i < k1; i += group) std::memcpy(to + i * width, from + i, group * sizeof(Element));
        }
    }
    for (int64_t i = k / group * group; i < k; ++i) {
        for (int64_t r = begin; r < end; ++r) {
            Element* to = panel + (i * width + r % width * group);
            to[0] = src[(r - begin) * k + i];
            for (int g = 1; g < group; ++g) to[g] = 0;
        }
    }
}

void convert_rows(void* panel, const PanelLayout& layout, DType t, const void* src, DType src_dtype, int64_t k,
                  int64_t begin, int64_t end) {
    const int64_t padded = layout.n_groups(k) * layout.group;
    for (int64_t k0 = 0; k0 < padded; k0 += kTile) {
        const int64_t k1 = std::min(padded, k0 + kTile);
        for (int64_t r = begin; r < end; ++r) {
            for (int64_t i = k0; i < k1; ++i) {
                const float f = i < k ? load_f32(src, src_dtype, (r - begin) * k + i) : 0.0f;
                store_f32(panel, t, layout.index(r, i), f);
            }
        }
    }
}

}  // namespace

size_t cpu_weight_bytes(const Weight* w) {
    if (w->format == WeightFormat::vector) return w->n * sizeof(float);
    const PanelLayout layout = panel_layout(w->dtype, isa());
    return layout.n_panels(w->n) * layout.panel_bytes(w->k, w->dtype);
}

int cpu_pack(Weight* w, const void* src, DType src_dtype, int64_t row, int64_t n_rows, ThreadPool* pool) {
    if (!fits(w, row, n_rows) || src_dtype == DType::i32) return 1;
    if (w->format == WeightFormat::vector) {
        for (int64_t i = 0; i < n_rows; ++i) {
            static_cast<float*>(w->data)[row + i] = load_f32(src, src_dtype, i);
        }
        return 0;
    }
    const PanelLayout layout = panel_layout(w->dtype, isa());
    const size_t panel_bytes = layout.panel_bytes(w->k, w->dtype);
    const size_t src_row_bytes = w->k * dtype_bytes(src_dtype);
    const int64_t first = row / layout.width;
    parallel_for(pool, layout.n_panels(row + n_rows) - first, [&](int64_t i, int) {
        char* panel = static_cast<char*>(w->data) + (first + i) * panel_bytes;
        const int64_t begin = std::max(row, (first + i) * layout.width);
        const int64_t end = std::min(row + n_rows, (first + i + 1) * layout.width);
        const char* from = static_cast<const char*>(src) + (begin - row) * src_row_bytes;
        if (src_dtype != w->dtype) {
            convert_rows(panel, layout, w->dtype, from, src_dtype, w->k, begin, end);
        } else if (src_dtype == DType::f32) {
            copy_rows<uint32_t, 1>(reinterpret_cast<uint32_t*>(panel), layout.width,
                                   reinterpret_cast<const uint32_t*>(from), w->k, begin, end);
        } else if (src_dtype == DType::bf16) {
            copy_rows<uint16_t, 2>(reinterpret_cast<uint16_t*>(panel), layout.width,
                                   reinterpret_cast<const uint16_t*>(from), w->k, begin, end);
        } else {
            copy_rows<uint16_t, 1>(reinterpret_cast<uint16_t*>(panel), layout.width,
                                   reinterpret_cast<const uint16_t*>(from), w->k, begin, end);
        }
    });
    return 0;
}

int cpu_unpack(const Weight* w, float* dst, int64_t row, int64_t n_rows, ThreadPool* pool) {
    if (!fits(w, row, n_rows)) return 1;
    if (w->format == WeightFormat::vector) {
        std::copy_n(static_cast<const float*>(w->data) + row, n_rows, dst);
        return 0;
    }
    const PanelLayout layout = panel_layout(w->dtype, isa());
    const size_t panel_bytes = layout.panel_bytes(w->k, w->dtype);
    parallel_for(pool, n_rows, [&](int64_t i, int) {
        const char* panel = static_cast<const char*>(w->data) + (row + i) / layout.width * panel_bytes;
        for (int64_t j = 0; j < w->k; ++j) {
            dst[i * w->k + j] = load_f32(panel, w->dtype, layout.index(row + i, j));
        }
    });
    return 0;
}

}  // namespace rvllm
