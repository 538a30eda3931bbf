// Sizes of the attention kernels' tiles and of the shared memory that holds them (no CUDA headers).
//
// `arch` is the architecture that a kernel was compiled for. Everything fits what its chips have: 64 KB per
// CTA on sm_70 and 75, 99 KB on 86, 89 and 120, 163 KB on 80 and 227 KB on 90 and 100.
#pragma once
#include <cstdint>

#include "attention/work.h"

namespace rvllm::cuda {

// ---- mma.sync, every architecture -------------------------------------------------------------------

constexpr int kPrefillWarps = 4;

// A row of a tile: eight consecutive ones lie in different banks for every multiple of 16.
constexpr int row_bytes(int head_dim) {
    return head_dim * 2 + 16;
}

// Decode: CTAs of a multiprocessor at a time.
constexpr int decode_ctas(int head_dim) {
    return head_dim > 128 ? 1 : 2;
}

// Granules in the ring of a warp.
constexpr int decode_stages(int arch, int head_dim) {
    const bool large = arch == 90 || arch == 100;
    if (arch < 80) return 1;  // copies are not asynchronous
    if (head_dim > 128) return large ? 2 : 1;
    return head_dim > 96 && !large ? 2 : 3;
}
constexpr int decode_smem_bytes(int arch, int head_dim) {
    return kDecodeWarps * decode_stages(arch, head_dim) * 2 * kGranule * row_bytes(head_dim);
}

// Accumulators of a warp, with their maxima and sums, while the warps are merged: in one stage of its ring.
constexpr int kMergePad = 4;  // floats between heads: other banks
constexpr int decode_merge_bytes(int head_dim, int n_heads) {
    return n_heads * ((head_dim + kMergePad) * 4 + 8);
}
static_assert(decode_merge_bytes(64, kMaxTileHeads) <= 2 * kGranule * row_bytes(64));
static_assert(decode_merge_bytes(256, kMaxTileHeads) <= 2 * kGranule * row_bytes(256));
static_assert(kMaxTileHeads * kMaxSplits * 4 <= 2 * kGranule * row_bytes(64), "weights of splits");

// Blocks of 16 query rows per warp: what the registers hold.
constexpr int row_tiles(int head_dim) {
    return head_dim > 128 ? 1 : 2;
}
constexpr int prefill_rows(int head_dim) {
    return kPrefillWarps * 16 * row_tiles(head_dim);
}

// Keys of a tile.
constexpr int prefill_keys(int arch, int head_dim) {
    if (arch < 80) return head_dim > 96 ? 16 : head_dim > 64 ? 32 : 64;
    return head_dim > 96 ? 32 : 64;
}

// Queries, and two tiles of keys and of values.
constexpr int prefill_smem_bytes(int arch, int head_dim) {
    return (prefill_rows(head_dim) + 4 * prefill_keys(arch, head_dim)) * row_bytes(head_dim);
}

// ---- sm_90a -----------------------------------------------------------------------------------------

// Boxes of a tensor map, 16 keys by 64 columns.
constexpr int kBoxBytes = kGranule * 128;
constexpr int chunks(int head_dim) {
    return (head_dim + 63) / 64;
}

// Prefill: query rows and keys of a tile, tiles of keys and of values in flight.
constexpr int kWgmmaGroups = 2;
constexpr int kWgmmaRows = 64 * kWgmmaGroups;
constexpr int kWgmmaStages = 2;
constexpr int wgmma_keys(int head_dim) {
    return head_dim > 128 ? 64 : 128;
}
constexpr int wgmma_smem_bytes(int head_dim) {
    return 1024 + (kWgmmaRows + 2 * kWgmmaStages * wgmma_keys(head_dim)) * 128 * chunks(head_dim);
}

}  // namespace rvllm::cuda
