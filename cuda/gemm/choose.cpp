// choose_linear: from measurements on an H200 (tables in the history of this file).
//
// Up to 256 tokens a shape is bound by reading its weights: one CTA per multiprocessor with as many
// tiles in flight as fit, K split only where there are fewer row blocks than multiprocessors. For
// more tokens the tile is the one with the smallest estimated time.
#include "gemm/choose.h"

#include <algorithm>
#include <cstdio>

#include "gemm/layout.h"

namespace rvllm::cuda {
namespace {

constexpr int kRingBytes = 212 * 1024;  // shared memory for tiles in flight, per multiprocessor

int stages_for(int tokens, int most) {
    return std::min(most, kRingBytes / (kTileBytes + tokens * 128));
}

// Smallest tile that holds all tokens, or the largest.
int decode_tokens(int m) {
    for (int tokens : {8, 16, 32, 64, 128})
        if (m <= tokens) return tokens;
    return 256;
}

// Microseconds of a wide tile on an H200: per chunk of K, per tile, and for tiles cut in two.
double wide_us(int64_t n_tiles, int64_t chunks, int n_clusters, double us_per_chunk) {
    const double tile = chunks * us_per_chunk + 1.7;
    if (n_tiles < n_clusters) return tile;
    return (double)n_tiles / n_clusters * tile + (n_tiles % n_clusters ? 12 : 0);
}

LinearDesc choose_hopper(const Device& device, const LinearShape& s) {
    LinearDesc d;
    d.dtype = s.dtype;
    d.trigger = 8;
    d.slice = s.m;
    const int64_t blocks = row_blocks(s.n), chunks = k_chunks(s.k);
    if (s.m <= kSliceTokens || s.batch_invariant) {
        d.slice = kSliceTokens;
        d.tokens = (int16_t)decode_tokens(s.m);
        d.n_stages = (int16_t)stages_for(d.tokens, 8);
        d.split = (int16_t)std::clamp<int64_t>(std::min(device.n_sms / blocks, chunks / 4), 1, 8);
        if (d.split > 1) {
            d.kernel = LinearKernel::split;
        } else {
            d.kernel = LinearKernel::wide;
            d.n_ctas = (int16_t)std::min<int64_t>(device.n_sms, blocks);
        }
        return d;
    }
    d.kernel = LinearKernel::wide;
    d.sharing = 2;
    const int n_clusters = device.n_sms / 2;
    constexpr struct {
        int tokens;
        double us_per_chunk;
    } tiles[] = {{128, 0.44}, {192, 0.575}, {256, 0.777}};
    double best = 0;
    int64_t best_tiles = 0;
    for (const auto& t : tiles) {
        const int64_t n_tiles = ceil_div(blocks, 2) * ceil_div(s.m, t.tokens);
        const double us = wide_us(n_tiles, chunks, n_clusters, t.us_per_chunk);
        if (d.tokens && us >= best) continue;
        best = us;
        best_tiles = n_tiles;
        d.tokens = (int16_t)t.tokens;
    }
    d.n_stages = (int16_t)stages_for(d.tokens, 8);
    d.n_ctas = (int16_t)(2 * std::min<int64_t>(n_clusters, best_tiles));
    return d;
}

}  // namespace

LinearDesc choose_linear(const Device& device, const LinearShape& s) {
    LinearDesc d;
    d.dtype = s.dtype;
    const bool half = s.dtype == DType::f16;
    if (device.arch < 75 || (!half && s.dtype != DType::bf16) || (!half && device.arch < 80)) return d;
    if (s.m <= 0 || s.n <= 0 || s.k <= 0 || s.k % 8) return d;
    if (device.arch == 90) return choose_hopper(device, s);
    d.kernel = LinearKernel::tile;
    d.tokens = 64;
    d.slice = s.m;
    return d;
}

const char* kernel_name(LinearKernel kernel) {
    switch (kernel) {
        case LinearKernel::split: return "linear_split";
        case LinearKernel::wide: return "linear_wide";
        case LinearKernel::tile: return "linear_tile";
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
}

}  // namespace rvllm::cuda
