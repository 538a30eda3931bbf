// gemm(): packs activations, cuts the product into tasks and runs micro-kernels over them.
//
// A task is one panel of weights times some blocks of rows, each as many rows as a micro-kernel takes.
// Weights come from memory once, and from the second-level cache for every further block; packed rows
// come from there too, again for every panel. Each kernel asks for what the next one will read. With
// silu_mul a task is a panel of gates and that of their up projections, whose sums stay in the cache.
#include "gemm.h"

#include <algorithm>

#include "pack.h"
#include "rows.h"

namespace rvllm {

namespace {

constexpr int64_t kBlockRowBytes =
    10240;  // of a packed row in one block of k: the panel's part stays in cache
constexpr int64_t kPrefetchBytes = 8192;  // how far ahead weights are asked for when they pass once
constexpr int64_t kWideBytes =
    3 << 19;  // weights up to this may be in a cache, which two panels at once use better
constexpr int64_t kInlineMacs = 100000;   // below, handing work to other threads costs more than it saves
constexpr int64_t kSerialPack = 1 << 16;  // activations that one thread packs as fast as several would

int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// Of packed rows, up to a cache line.
int64_t packed_bytes(const PanelLayout& layout, const GemmKernels& kernels, int64_t m, int64_t k) {
    const int64_t row = layout.n_groups(k) * layout.group * static_cast<int64_t>(kernels.a_bytes);
    return ceil_div(m * row, 64) * 64;
}

// One product of at most kMaxChunkRows rows, cut up.
class Chunk {
public:
    Chunk(ThreadPool* pool, const Gemm& gemm);

    int64_t n_row_blocks() const { return n_row_blocks_; }
    int64_t n_tasks() const { return n_panel_tasks_ * ceil_div(n_row_blocks_, row_blocks_per_task_); }
    int64_t pair_floats() const { return g_.m * 2 * layout_.width; }
    void pack(int64_t row_block) const;
    void run(int64_t task, int thread) const;

private:
    int64_t first_row(int64_t row_block) const { return g_.m * row_block / n_row_blocks_; }
    int rows(int64_t row_block) const {
        return static_cast<int>(first_row(row_block + 1) - first_row(row_block));
    }
    char* packed(int64_t row_block, int64_t group) const {
        return packed_ + (first_row(row_block) * n_groups_ + group * rows(row_block)) * a_group_bytes_;
    }
    // Where the sums of some rows and panels go: y, or rows of two panels.
    struct Target {
        float* y;
        int64_t stride, first_row, first_column;
    };
    void stream(int64_t panel, int64_t n_panels, const Target& to) const;
    void multiply(int64_t panel, int64_t block_begin, int64_t block_end, const Target& to) const;
    void activate(int64_t pair, int64_t row_begin, int64_t row_end, const Target& from) const;
    MicroArgs args(int64_t panel, int64_t n_panels, int64_t row_block, int64_t group, int64_t n_groups,
                   const Target& to) const;

    const Gemm& g_;
    PanelLayout layout_;
    int64_t n_panels_;
    int64_t n_groups_;  // of k, in a panel and in a packed row
    int64_t w_group_bytes_;
    int64_t a_group_bytes_;  // of one packed row
    int64_t panel_bytes_;
    int64_t n_row_blocks_;
    int64_t row_blocks_per_task_;
    int64_t panels_per_task_;  // two where one block of few rows leaves registers for them
    int64_t n_panel_tasks_;
    bool wide_;  // one kernel takes both
    char* packed_;
    float* pairs_;  // silu_mul: sums of each thread
};

Chunk::Chunk(ThreadPool* pool, const Gemm& gemm) : g_(gemm), layout_(panel_layout(gemm.dtype, isa())) {
    n_panels_ = layout_.n_panels(g_.n, g_.silu_mul ? RowOrder::gate_up : RowOrder::plain);
    n_groups_ = layout_.n_groups(g_.k);
    panel_bytes_ = static_cast<int64_t>(layout_.panel_bytes(g_.k, g_.dtype));
    w_group_bytes_ = panel_bytes_ / n_groups_;
    a_group_bytes_ = layout_.group * static_cast<int64_t>(g_.kernels->a_bytes);
    n_row_blocks_ = ceil_div(g_.m, g_.kernels->max_rows);
    wide_ = g_.m <= g_.kernels->max_rows_wide && n_panels_ * panel_bytes_ <= kWideBytes;
    if (g_.silu_mul && g_.bias != nullptr) wide_ = false;  // the biases of the two panels lie apart
    panels_per_task_ = wide_ || g_.silu_mul ? 2 : 1;
    n_panel_tasks_ = ceil_div(n_panels_, panels_per_task_);
    row_blocks_per_task_ = n_row_blocks_;
    while (row_blocks_per_task_ > 1 && n_tasks() < 4 * pool_threads(pool)) {
        row_blocks_per_task_ = ceil_div(row_blocks_per_task_, 2);
    }
    packed_ = static_cast<char*>(
        pool_scratch(pool, gemm_scratch_bytes(g_.dtype, g_.m, g_.k, g_.silu_mul, pool_threads(pool))));
    pairs_ = reinterpret_cast<float*>(packed_ + packed_bytes(layout_, *g_.kernels, g_.m, g_.k));
}

void Chunk::pack(int64_t row_block) const {
    g_.kernels->pack_rows(g_.x + first_row(row_block) * g_.x_stride, g_.x_stride, g_.k, rows(row_block),
                          packed(row_block, 0));
}

void Chunk::run(int64_t task, int thread) const {
    const int64_t panel = task % n_panel_tasks_ * panels_per_task_;
    const int64_t n_panels = std::min(panels_per_task_, n_panels_ - panel);
    const int64_t block = task / n_panel_tasks_ * row_blocks_per_task_;
    const int64_t block_end = std::min(block + row_blocks_per_task_, n_row_blocks_);
    Target to = {g_.y, g_.y_stride, 0, 0};
    if (g_.silu_mul) {
        to = {pairs_ + thread * pair_floats(), 2 * layout_.width, first_row(block), panel * layout_.width};
    }
    if (wide_) {
        stream(panel, n_panels, to);
    } else {
        for (int64_t p = panel; p < panel + n_panels; ++p) {
            n_row_blocks_ == 1 ? stream(p, 1, to) : multiply(p, block, block_end, to);
        }
    }
    if (g_.silu_mul) activate(panel / 2, first_row(block), first_row(block_end), to);
}

// y = silu(gate) * up for the rows of a pair of panels.
void Chunk::activate(int64_t pair, int64_t row_begin, int64_t row_end, const Target& from) const {
    const int64_t column = pair * layout_.width, n = std::min(layout_.width, g_.n / 2 - column);
    const auto silu_mul = row_kernels().silu_mul;
    for (int64_t r = row_begin; r < row_end; ++r) {
        const float* gate = from.y + (r - row_begin) * from.stride;
        silu_mul(gate, gate + layout_.width, g_.y + r * g_.y_stride + column, n);
    }
}

MicroArgs Chunk::args(int64_t panel, int64_t n_panels, int64_t row_block, int64_t group, int64_t n_groups,
                      const Target& to) const {
    // Of the model's rows: gates and up projections take turns with silu_mul.
    const int64_t half = g_.n / 2, column = (g_.silu_mul ? panel / 2 : panel) * layout_.width;
    const int64_t bias_column = column + (g_.silu_mul && panel % 2 ? half : 0);
    const bool last = group + n_groups == n_groups_;
    MicroArgs m;
    m.a = packed(row_block, group);
    m.w = static_cast<const char*>(g_.w) + panel * panel_bytes_ + group * w_group_bytes_;
    m.panel_bytes = panel_bytes_;
    m.n_groups = n_groups;
    m.y = to.y + (first_row(row_block) - to.first_row) * to.stride + panel * layout_.width - to.first_column;
    m.y_stride = to.stride;
    m.n_cols = static_cast<int>(n_panels * layout_.width);
    if (!g_.silu_mul || n_panels == 1) {
        m.n_cols = static_cast<int>(std::min<int64_t>(m.n_cols, (g_.silu_mul ? half : g_.n) - column));
    }
    m.bias = last && g_.bias != nullptr ? g_.bias + bias_column : nullptr;
    m.resume = group > 0;
    return m;
}

// All rows in one block: the weights pass once.
void Chunk::stream(int64_t panel, int64_t n_panels, const Target& to) const {
    MicroArgs m = args(panel, n_panels, 0, 0, n_groups_, to);
    const char* w = static_cast<const char*>(m.w);
    if (n_panels == 2) {
        m.prefetch[0] = m.prefetch[1] = {w, 0};
        g_.kernels->wide[g_.m - 1](m);
    } else {
        m.prefetch[0] = {w + kPrefetchBytes, w_group_bytes_};
        m.prefetch[1] = {w + kPrefetchBytes + 64, w_group_bytes_};
        g_.kernels->narrow[g_.m - 1](m);
    }
}

// A panel times several blocks of rows, a block of k at a time.
void Chunk::multiply(int64_t panel, int64_t block_begin, int64_t block_end, const Target& to) const {
    const int64_t n_k_blocks = ceil_div(n_groups_ * a_group_bytes_, kBlockRowBytes);
    const int64_t k_block = ceil_div(n_groups_, n_k_blocks);
    for (int64_t group = 0; group < n_groups_; group += k_block) {
        const int64_t n_groups = std::min(k_block, n_groups_ - group);
        const int64_t next_group = group + n_groups < n_groups_ ? group + n_groups : 0;
        for (int64_t block = block_begin; block < block_end; ++block) {
            MicroArgs m = args(panel, 1, block, group, n_groups, to);
            // The last two blocks of rows ask for half of the weights that follow each; every block asks for
            // the next block of rows, the last one for the first again.
            const int64_t n_left = block_end - block;
            const char* w = static_cast<const char*>(m.w);
            const int64_t half = w_group_bytes_ / 2;
            m.prefetch[0] = n_left > 2    ? MicroArgs::Prefetch{w, 0}
                            : n_left == 2 ? MicroArgs::Prefetch{w + n_groups * w_group_bytes_, half}
                                          : MicroArgs::Prefetch{w + n_groups * (w_group_bytes_ + half), half};
            m.prefetch[1] = {n_left > 1 ? packed(block + 1, group) : packed(block_begin, next_group),
                             rows(block) * a_group_bytes_};
            g_.kernels->narrow[rows(block) - 1](m);
        }
    }
}

void multiply_chunk(ThreadPool* pool, const Gemm& g) {
    const Chunk chunk(pool, g);
    const bool one_thread = g.m * g.n * g.k <= kInlineMacs || pool_threads(pool) == 1;
    if (one_thread || g.m * g.k <= kSerialPack) {
        for (int64_t b = 0; b < chunk.n_row_blocks(); ++b) chunk.pack(b);
    } else {
        parallel_for(pool, chunk.n_row_blocks(), [&](int64_t b, int) { chunk.pack(b); });
    }
    if (one_thread) {
        for (int64_t t = 0; t < chunk.n_tasks(); ++t) chunk.run(t, 0);
    } else {
        parallel_for(pool, chunk.n_tasks(), [&](int64_t t, int thread) { chunk.run(t, thread); });
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

size_t gemm_scratch_bytes(DType weight, int64_t m, int64_t k, bool silu_mul, int n_threads) {
    const PanelLayout layout = panel_layout(weight, isa());
    const int64_t rows = std::min(m, kMaxChunkRows);
    const int64_t pairs = silu_mul ? rows * 2 * layout.width * n_threads * sizeof(float) : 0;
    return packed_bytes(layout, *gemm_kernels(weight, isa()), rows, k) + pairs;
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

}  // namespace rvllm
