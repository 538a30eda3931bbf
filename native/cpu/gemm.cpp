// gemm(): packs activations, cuts the product into tasks and runs micro-kernels over them.
//
// A task is some panels of weights times some blocks of rows. Few rows: every panel is streamed from
// memory once. Many rows: k is blocked so that a block of rows stays in the first-level cache while the
// task's panels, in the second-level cache, pass by.
#include "gemm.h"

#include <algorithm>

#include "pack.h"

namespace rvllm {

namespace {

constexpr int64_t kMaxChunkRows = 512;    // rows packed and multiplied at a time
constexpr int64_t kBlockRowBytes = 2560;  // of a packed row in one block of k: 14 of them fit the first-level cache
constexpr int64_t kPanelsPerTask = 4;     // of many rows: panels that stay in the second-level cache
constexpr int64_t kPrefetchBytes = 2048;  // how far ahead weights are asked for when they are read once
constexpr int64_t kInlineMacs = 100000;   // below, waking other threads costs more than it saves
constexpr int64_t kSerialPack = 1 << 16;  // activations that one thread packs as fast as several would

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One product of at most kMaxChunkRows rows.
struct Chunk {
    explicit Chunk(const Gemm& gemm) : g(gemm) {}

    const Gemm& g;
    PanelLayout layout;
    size_t panel_bytes;
    int64_t n_panels;
    int64_t n_groups;
    int64_t n_row_blocks;
    size_t row_bytes;    // of a packed row
    char* packed;        // row block b starts at row first_row(b)
    int64_t k_block;     // groups of k at a time
    int64_t panels_per_task;
    int64_t n_panel_tasks;
    int64_t row_blocks_per_task;

    int64_t first_row(int64_t block) const { return g.m * block / n_row_blocks; }

    void pack(int64_t block) const {
        const int64_t row = first_row(block);
        g.kernels->pack_rows(g.x + row * g.x_stride, g.x_stride, g.k, static_cast<int>(first_row(block + 1) - row),
                             packed + row * row_bytes);
    }

    void run(int64_t task) const {
        const int64_t panel_begin = task % n_panel_tasks * panels_per_task;
        const int64_t panel_end = std::min(panel_begin + panels_per_task, n_panels);
        const int64_t block_begin = task / n_panel_tasks * row_blocks_per_task;
        const int64_t block_end = std::min(block_begin + row_blocks_per_task, n_row_blocks);
        for (int64_t group = 0; group < n_groups; group += k_block) {
            for (int64_t block = block_begin; block < block_end; ++block) {
                multiply(block, block - block_begin, panel_begin, panel_end, group);
            }
        }
    }

    void multiply(int64_t block, int64_t pass, int64_t panel_begin, int64_t panel_end, int64_t group) const {
        const int64_t row = first_row(block);
        const int rows = static_cast<int>(first_row(block + 1) - row);
        const size_t group_bytes = panel_bytes / n_groups;
        const bool last = group + k_block >= n_groups;
        MicroArgs m;
        m.n_groups = last ? n_groups - group : k_block;
        m.a = packed + row * row_bytes + group * (row_bytes / n_groups) * rows;
        m.panel_bytes = panel_bytes;
        m.y_stride = g.y_stride;
        m.resume = group > 0;
        for (int64_t panel = panel_begin; panel < panel_end;) {
            const int n_wide = rows <= g.kernels->max_rows_wide && panel + 1 < panel_end ? 2 : 1;
            const int64_t col = panel * layout.width;
            const char* w = static_cast<const char*>(g.w) + panel * panel_bytes + group * group_bytes;
            m.w = w;
            m.y = g.y + row * g.y_stride + col;
            m.n_cols = static_cast<int>(std::min(n_wide * layout.width, g.n - col));
            m.bias = last && g.bias != nullptr ? g.bias + col : nullptr;
            if (n_row_blocks == 1) {
                m.prefetch = w + kPrefetchBytes;
                m.prefetch_step = group_bytes;
            } else if (pass < 2) {
                m.prefetch = w + m.n_groups * group_bytes + pass * m.n_groups * 64;
                m.prefetch_step = 64;
            } else {
                m.prefetch = w;
                m.prefetch_step = 0;
            }
            (n_wide == 2 ? g.kernels->wide : g.kernels->narrow)[rows - 1](m);
            panel += n_wide;
        }
    }
};

void multiply_chunk(ThreadPool* pool, const Gemm& g) {
    Chunk c(g);
    c.layout = panel_layout(g.dtype, isa());
    c.panel_bytes = c.layout.panel_bytes(g.k, g.dtype);
    c.n_panels = c.layout.n_panels(g.n);
    c.n_groups = c.layout.n_groups(g.k);
    c.n_row_blocks = ceil_div(g.m, g.kernels->max_rows);
    c.row_bytes = c.n_groups * c.layout.group * g.kernels->a_bytes;
    c.packed = static_cast<char*>(pool_scratch(pool, g.m * c.row_bytes));
    const int64_t max_k_block = std::max<int64_t>(1, kBlockRowBytes * c.n_groups / c.row_bytes);
    c.k_block = c.n_row_blocks == 1 ? c.n_groups : ceil_div(c.n_groups, ceil_div(c.n_groups, max_k_block));
    const int n_threads = pool_threads(pool);
    if (c.n_row_blocks == 1) {
        c.panels_per_task = g.m <= g.kernels->max_rows_wide ? 2 : 1;
    } else if (c.n_row_blocks < 4) {
        c.panels_per_task = 1;
    } else {
        c.panels_per_task = std::clamp<int64_t>(c.n_panels / (4 * n_threads), 1, kPanelsPerTask);
    }
    c.n_panel_tasks = ceil_div(c.n_panels, c.panels_per_task);
    c.row_blocks_per_task = c.n_row_blocks;
    const auto count = [&] { return c.n_panel_tasks * ceil_div(c.n_row_blocks, c.row_blocks_per_task); };
    while (count() < 4 * n_threads && c.row_blocks_per_task > 1) {
        c.row_blocks_per_task = ceil_div(c.row_blocks_per_task, 2);
    }
    const int64_t n_tasks = count();

    const bool one_thread = g.m * g.n * g.k <= kInlineMacs;
    if (one_thread || g.m * g.k <= kSerialPack) {
        for (int64_t b = 0; b < c.n_row_blocks; ++b) c.pack(b);
    } else {
        parallel_for(pool, c.n_row_blocks, [&](int64_t b, int) { c.pack(b); });
    }
    if (one_thread) {
        for (int64_t t = 0; t < n_tasks; ++t) c.run(t);
    } else {
        parallel_for(pool, n_tasks, [&](int64_t t, int) { c.run(t); });
    }
}

}  // namespace

const GemmKernels* gemm_kernels(DType weight, Isa set) {
    if (weight == DType::i32) return nullptr;
#if defined(__x86_64__)
    if (set == Isa::avx512_bf16 && weight == DType::bf16) return gemm_kernels_avx512_bf16(weight);
    if (set >= Isa::avx512) return gemm_kernels_avx512(weight);
    if (set == Isa::avx2) return gemm_kernels_avx2(weight);
#endif
    return gemm_kernels_generic(weight);
}

void gemm(ThreadPool* pool, const Gemm& g) {
    for (int64_t row = 0; row < g.m; row += kMaxChunkRows) {
        Gemm chunk = g;
        chunk.m = std::min(kMaxChunkRows, g.m - row);
        chunk.x += row * g.x_stride;
        chunk.y += row * g.y_stride;
        multiply_chunk(pool, chunk);
    }
}

void cpu_gemm_reserve(ThreadPool* pool, int64_t max_m, int64_t max_k) {
    pool_scratch(pool, std::min(max_m, kMaxChunkRows) * ((max_k + 1) / 2 * 2) * sizeof(float));
}

}  // namespace rvllm
