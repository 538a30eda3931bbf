// choose_linear: from measurements on an H200 (tables in the history of this file).
//
// Few tokens are bound by reading the weights: one CTA per multiprocessor with as many tiles in flight as
// fit, K split only where there are fewer row blocks than multiprocessors. For more tokens the tile is the
// one with the smallest estimated time.
#include "gemm/choose.h"

#include <algorithm>
#include <cstdio>

#include "gemm/layout.h"
#include "gemm/table.h"

namespace rvllm::cuda {
namespace {

constexpr int kRingBytes = 212 * 1024;  // shared memory for tiles in flight, per multiprocessor

int stages_for(int tokens, int most) {
    return std::min(most, kRingBytes / (kTileBytes + tokens * 128));
}

int stages_of(const Device& device, int tokens) {
    if (device.arch < 80) return 2;
    // Deeper where the next kernel's weights are fetched ahead (device/pdl.cuh); with the fewest tokens it is
    // slower elsewhere.
    const bool deep = (tokens == 32 || (tokens < 32 && device.arch >= 90)) &&
                      device.smem_bytes >= kTileDeepStages * (kTileBytes + tokens * 128);
    return deep ? kTileDeepStages : tile_stages(tokens);
}

// Smallest tile that holds all tokens, or the largest.
int decode_tokens(int m) {
    for (int tokens : {8, 16, 32, 64, 128})
        if (m <= tokens) return tokens;
    return 256;
}

LinearDesc few_tokens(const Device& device, const LinearShape& s) {
    LinearDesc d;
    d.dtype = s.dtype;
    const int64_t blocks = row_blocks(s.n), chunks = k_chunks(s.k);
    d.slice = kSliceTokens;
    d.tokens = (int16_t)decode_tokens(s.m);
    d.trigger = 16;
    d.n_stages = (int16_t)stages_for(d.tokens, 12);
    const auto fits = [&](int split) {
        // Clusters of four and more leave multiprocessors unused at the ends of GPCs: what does not fit at
        // once starts when others have ended.
        const int n_ctas = split > 3 ? device.n_sms * 7 / 8 : device.n_sms;
        return blocks * split <= n_ctas && split <= chunks / 4;
    };
    d.split = 8;
    while (d.split > 1 && !fits(d.split)) --d.split;
    if (d.split > 1) {
        d.kernel = LinearKernel::split;
    } else {
        d.kernel = LinearKernel::wide;
        d.n_ctas = (int16_t)std::min<int64_t>(device.n_sms, blocks);
    }
    return d;
}

// Clock cycles of a tile of linear_large_kernel on an H200: per chunk of K, at its end, and for handing sums
// over.
struct LargeTile {
    int tokens, n_stages;
    double chunk, end, exchange;
};
constexpr LargeTile kLargeTiles[] = {
    {128, 6, 550, 2000, 5000}, {192, 4, 795, 2800, 5500}, {256, 4, 1024, 3500, 8000}};

// Whole rounds of tiles, one per cluster, then the rest with K split over the clusters there are. Of tiles of
// `tile_tokens` only, if that is not zero.
LinearDesc many_tokens(const Device& device, const LinearShape& s, int tile_tokens = 0) {
    constexpr int kMaxParts = 4, kPieceTokens = 32;
    LinearDesc d;
    d.dtype = s.dtype;
    d.trigger = 8;
    d.kernel = LinearKernel::large;
    d.slice = s.m;
    d.sharing = 2;
    const int64_t chunks = k_chunks(s.k);
    const int max_clusters = device.n_sms / 2;
    double best = 0;
    for (const LargeTile& t : kLargeTiles) {
        if (tile_tokens && t.tokens != tile_tokens) continue;
        const int64_t n_tiles = ceil_div(row_blocks(s.n), d.sharing) * ceil_div(s.m, t.tokens);
        const int64_t rest = n_tiles % max_clusters;
        int64_t split = 1;
        if (rest)
            split = std::clamp<int64_t>(std::min(max_clusters / rest, chunks / 4), 1,
                                        std::min(kMaxParts, t.tokens / kPieceTokens));
        double clocks = (double)(n_tiles / max_clusters) * (chunks * t.chunk + t.end);
        if (rest) clocks += chunks * t.chunk / split + t.end + (split > 1 ? t.exchange : 0);
        if (d.tokens && clocks > best) continue;
        best = clocks;
        d.tokens = (int16_t)t.tokens;
        d.n_stages = (int16_t)t.n_stages;
        d.split = (int16_t)split;
        d.n_ctas = (int16_t)(d.sharing * std::min<int64_t>(max_clusters, n_tiles * split));
    }
    return d;
}

// Tiles one CTA each, or as n_cut_tiles() says.
LinearDesc tiles(const Device& device, const LinearShape& s, int tokens, int64_t n_tiles, int n_ctas,
                 bool cut) {
    LinearDesc d;
    d.dtype = s.dtype;
    d.kernel = LinearKernel::tile;
    d.tokens = (int16_t)tokens;
    d.n_stages = (int16_t)stages_of(device, tokens);
    d.n_ctas = (int16_t)n_ctas;
    d.slice = s.m;
    const int64_t n_cut = n_cut_tiles(n_tiles, n_ctas);
    if (cut) d.split = (int16_t)(n_ctas % n_cut ? ceil_div(n_ctas, n_cut) + 1 : n_ctas / n_cut);
    return d;
}

// `split`: CTAs per row block, as far as there are multiprocessors; 0: what is best.
LinearDesc few_tiles(const Device& device, const LinearShape& s, int split = 0) {
    constexpr int kMaxTokens = 128, kLeastChunks = 4;  // of a CTA
    const int64_t blocks = row_blocks(s.n), units = blocks * k_chunks(s.k);
    const int64_t most = std::clamp<int64_t>(units / kLeastChunks, 1, device.n_sms);
    // Every CTA the same part of one row block, unless that leaves many multiprocessors without work.
    const int64_t even = most / blocks * blocks;
    const int64_t n_ctas = split ? std::min(most, blocks * split) : even * 4 >= most * 3 ? even : most;
    LinearDesc d = tiles(device, s, std::min(decode_tokens(s.m), kMaxTokens), blocks, (int)n_ctas, true);
    d.slice = kMaxTokens;
    return d;
}

// The same for a tile of linear_tile_kernel.
constexpr LargeTile kTiles[] = {
    {64, 0, 887, 3600, 7400}, {128, 0, 1268, 8000, 13900}, {256, 0, 2490, 13700, 18500}};

// Of tiles of `tile_tokens` only and with a `split` of 1 (no tile is cut) or 2, where these are not zero.
LinearDesc many_tiles(const Device& device, const LinearShape& s, int tile_tokens = 0, int split = 0) {
    LinearDesc d;
    const int64_t chunks = k_chunks(s.k);
    double best = 0;
    for (const LargeTile& t : kTiles) {
        if (t.tokens > tile_max_tokens(device)) continue;
        if (tile_tokens && t.tokens != tile_tokens) continue;
        const int64_t n_tiles = row_blocks(s.n) * ceil_div(s.m, t.tokens);
        for (const bool cut : {false, true}) {
            if (split && cut != (split > 1)) continue;
            const int64_t n_ctas = std::min<int64_t>(device.n_sms, n_tiles * (cut ? chunks : 1));
            const double rounds = cut ? (double)n_tiles / n_ctas : (double)ceil_div(n_tiles, n_ctas);
            const double clocks = rounds * (chunks * t.chunk + t.end) + (cut ? 2 * t.exchange : 0);
            if (d.tokens && clocks >= best) continue;
            best = clocks;
            d = tiles(device, s, t.tokens, n_tiles, (int)n_ctas, cut);
        }
    }
    return d;
}

LinearDesc whole(const LinearShape& s, LinearKernel kernel) {
    LinearDesc d;
    d.dtype = s.dtype;
    d.kernel = kernel;
    d.slice = s.m;
    return d;
}

bool has_kernels(const Device& device, const LinearShape& s) {
    const bool half = s.dtype == DType::f16;
    if (device.arch < 70 || (!half && s.dtype != DType::bf16) || (!half && device.arch < 80)) return false;
    return s.m > 0 && s.n > 0 && s.k > 0 && s.k % 8 == 0;
}

LinearDesc tiles_in_way(const Device& device, const LinearShape& s, const LinearWay& way) {
    const LinearDesc none = whole(s, LinearKernel::none);
    if (device.arch == 90 || s.strategy != GemmStrategy::cutlass || way.split < 1) return none;
    if (s.m > kDecodeTokens) {
        if (way.split > 2 || way.n_stages) return none;
        const LinearDesc d = many_tiles(device, s, way.tokens, way.split);
        return d.tokens == way.tokens ? d : none;
    }
    return way.tokens || way.n_stages ? none : few_tiles(device, s, way.split);
}

}  // namespace

LinearDesc linear_in_way(const Device& device, const LinearShape& s, const LinearWay& way) {
    const LinearDesc none = whole(s, LinearKernel::none);
    if (!has_kernels(device, s)) return none;
    if (way.kernel == LinearKernel::cublas)  // its sums depend on m
        return s.strategy == GemmStrategy::hybrid && s.m > kDecodeTokens ? whole(s, LinearKernel::cublas)
                                                                         : none;
    if (s.strategy == GemmStrategy::cublas) return none;
    if (way.kernel == LinearKernel::tile) return tiles_in_way(device, s, way);
    if (device.arch != 90) return none;
    if (way.kernel == LinearKernel::large) {
        if (s.strategy != GemmStrategy::cutlass || s.m <= kDecodeTokens) return none;
        const LinearDesc d = many_tokens(device, s, way.tokens);
        return d.tokens == way.tokens ? d : none;
    }
    LinearDesc d = few_tokens(device, s);
    if (way.n_stages < 2 || s.m > kSliceTokens) return none;
    d.n_stages = std::min(d.n_stages, way.n_stages);
    d.kernel = way.kernel;
    d.split = way.split;
    d.n_ctas = 0;
    const int64_t blocks = row_blocks(s.n), chunks = k_chunks(s.k);
    if (way.kernel == LinearKernel::wide && way.split == 1) {
        d.n_ctas = (int16_t)std::min<int64_t>(device.n_sms, blocks);
        return d;
    }
    const bool fits = way.split >= 2 && way.split <= 8 && way.split <= chunks / 2 && blocks <= 65535;
    return way.kernel == LinearKernel::split && fits ? d : none;
}

LinearDesc choose_linear(const Device& device, const LinearShape& s, const LinearTable* table) {
    const LinearWay* way = table && !s.batch_invariant ? table->find(s) : nullptr;
    if (way) {
        LinearDesc d = linear_in_way(device, s, *way);
        d.measured = true;
        return d;
    }
    if (!has_kernels(device, s)) return whole(s, LinearKernel::none);
    const bool few = s.m <= kDecodeTokens || s.batch_invariant, hopper = device.arch == 90;
    if (s.strategy == GemmStrategy::cublas || (s.strategy == GemmStrategy::hybrid && !(few && hopper)))
        return whole(s, LinearKernel::cublas);
    if (!hopper) return few ? few_tiles(device, s) : many_tiles(device, s);
    return few ? few_tokens(device, s) : many_tokens(device, s);
}

int tile_max_tokens(const Device& device) {
    return device.arch >= 80 && device.smem_bytes >= tile_stages(256) * (kTileBytes + 256 * 128) ? 256 : 128;
}

int64_t n_cut_tiles(int64_t n_tiles, int n_ctas) {
    return n_tiles - std::max<int64_t>(0, n_tiles / n_ctas - 1) * n_ctas;
}

bool can_rope(const LinearDesc& desc, int head_dim) {
    const bool whole_heads = head_dim % 8 == 0 && kBlockRows % head_dim == 0;
    return whole_heads && (desc.kernel == LinearKernel::split || desc.kernel == LinearKernel::large);
}

const char* kernel_name(LinearKernel kernel) {
    switch (kernel) {
        case LinearKernel::split: return "linear_split";
        case LinearKernel::wide: return "linear_wide";
        case LinearKernel::large: return "linear_large";
        case LinearKernel::tile: return "linear_tile";
        case LinearKernel::cublas: return "cublasLt";
        default: return "";
    }
}

void describe_linear(const LinearDesc& d, char* text, size_t size) {
    int n = std::snprintf(text, size, "%s", kernel_name(d.kernel));
    const auto add = [&](const char* format, int value) {
        if (value && n >= 0 && static_cast<size_t>(n) < size)
            n += std::snprintf(text + n, size - n, format, value);
    };
    add(" x%d tokens", d.tokens);
    add(", %d stages", d.n_stages);
    add(", K in %d", d.split > 1 ? d.split : 0);
    add(", %d CTAs", d.n_ctas);
    add(" (measured)", d.measured);
}

}  // namespace rvllm::cuda
