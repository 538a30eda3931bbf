// cpu_pack(), cpu_unpack(): row-major host arrays into panels and back.
//
// One panel is one piece of work. Its rows are read a cache line at a time, so that the part of the
// panel written meanwhile stays in the first-level cache: the cost is that of reading and writing memory.
#include "pack.h"

#include <algorithm>

namespace rvllm {

namespace {

constexpr int64_t kTile = 32;  // k per pass over the rows of a panel; even, so that no group spans two

// Rows [begin, end) fill panels first, first + step, ...
struct Section {
    int64_t begin, end, first, step;
};

struct Sections {
    Section of[2];
    int n;
    const Section* begin() const { return of; }
    const Section* end() const { return of + n; }
};

Sections sections(const Weight& w) {
    if (w.order == RowOrder::plain) return {{{0, w.n, 0, 1}}, 1};
    return {{{0, w.n / 2, 0, 2}, {w.n / 2, w.n, 1, 2}}, 2};
}

bool fits(const Weight* w, int64_t row, int64_t n_rows) {
    if (w->order == RowOrder::gate_up && w->n % 2) return false;
    return row >= 0 && n_rows >= 0 && row + n_rows <= w->n && w->dtype != DType::i32;
}

// n elements, from one float type to another. Inlined into the loops over rows it is not vectorised.
__attribute__((noinline)) void convert(const void* src, DType from, int64_t first, int64_t n, void* dst,
                                       DType to) {
    float wide[kTile];
    const auto* half = static_cast<const uint16_t*>(src) + first;
    if (from == DType::f32) {
        std::memcpy(wide, static_cast<const float*>(src) + first, n * sizeof(float));
    } else if (from == DType::bf16) {
        for (int64_t i = 0; i < n; ++i) wide[i] = bf16_to_f32(half[i]);
    } else {
        for (int64_t i = 0; i < n; ++i) wide[i] = f16_to_f32(half[i]);
    }
    auto* narrow = static_cast<uint16_t*>(dst);
    if (to == DType::f32) {
        std::memcpy(dst, wide, n * sizeof(float));
    } else if (to == DType::bf16) {
        for (int64_t i = 0; i < n; ++i) narrow[i] = f32_to_bf16(wide[i]);
    } else {
        for (int64_t i = 0; i < n; ++i) narrow[i] = f32_to_f16(wide[i]);
    }
}

// Writes rows [begin, end) of one panel of type `t`; `src` is row `begin`.
template <class Element, int64_t group>
void pack_rows(Element* panel, DType t, int64_t width, const void* src, DType src_dtype, int64_t k,
               int64_t begin, int64_t end) {
    Element tile[kTile];
    for (int64_t k0 = 0; k0 < k; k0 += kTile) {
        const int64_t n = std::min(kTile, k - k0);
        for (int64_t r = begin; r < end; ++r) {
            const int64_t first = (r - begin) * k + k0;
            const Element* from = static_cast<const Element*>(src) + first;
            if (src_dtype != t) {
                convert(src, src_dtype, first, n, tile, t);
                from = tile;
            }
            Element* to = panel + k0 * width + r % width * group;
            int64_t i = 0;
            for (; i + group <= n; i += group) std::memcpy(to + i * width, from + i, group * sizeof(Element));
            if (i < n) {
                to[i * width] = from[i];
                to[i * width + 1] = 0;
            }
        }
    }
}

}  // namespace

size_t cpu_weight_bytes(const Weight* w) {
    if (w->format == WeightFormat::vector) return w->n * sizeof(float);
    const PanelLayout layout = panel_layout(w->dtype, isa());
    return layout.n_panels(w->n, w->order) * layout.panel_bytes(w->k, w->dtype);
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
    for (const Section& section : sections(*w)) {
        const int64_t first_row = std::max(row, section.begin) - section.begin;
        const int64_t end_row = std::min(row + n_rows, section.end) - section.begin;
        if (first_row >= end_row) continue;
        const int64_t first = first_row / layout.width;
        parallel_for(pool, layout.n_panels(end_row) - first, [&](int64_t i, int) {
            char* panel =
                static_cast<char*>(w->data) + (section.first + (first + i) * section.step) * panel_bytes;
            const int64_t begin = std::max(first_row, (first + i) * layout.width);
            const int64_t end = std::min(end_row, (first + i + 1) * layout.width);
            const char* from = static_cast<const char*>(src) + (section.begin + begin - row) * src_row_bytes;
            if (w->dtype == DType::f32) {
                pack_rows<uint32_t, 1>(reinterpret_cast<uint32_t*>(panel), w->dtype, layout.width, from,
                                       src_dtype, w->k, begin, end);
            } else if (w->dtype == DType::bf16) {
                pack_rows<uint16_t, 2>(reinterpret_cast<uint16_t*>(panel), w->dtype, layout.width, from,
                                       src_dtype, w->k, begin, end);
            } else {
                pack_rows<uint16_t, 1>(reinterpret_cast<uint16_t*>(panel), w->dtype, layout.width, from,
                                       src_dtype, w->k, begin, end);
            }
        });
    }
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
    for (const Section& section : sections(*w)) {
        const int64_t begin = std::max(row, section.begin), end = std::min(row + n_rows, section.end);
        parallel_for(pool, std::max<int64_t>(end - begin, 0), [&](int64_t i, int) {
            const int64_t r = begin + i - section.begin;
            const int64_t at = section.first + r / layout.width * section.step;
            const char* panel = static_cast<const char*>(w->data) + at * panel_bytes;
            float* to = dst + (begin + i - row) * w->k;
            for (int64_t j = 0; j < w->k; ++j) to[j] = load_f32(panel, w->dtype, layout.index(r, j));
        });
    }
    return 0;
}

}  // namespace rvllm
