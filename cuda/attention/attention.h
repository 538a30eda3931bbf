// Sizes of the attention kernels' tiles and of the shared memory that holds them (no CUDA headers).
#pragma once
#include <cstdint>

#include "attention/work.h"

namespace rvllm::cuda {

constexpr int kDecodeWarps = 4;
constexpr int kDecodeCtas = 2;  // of a multiprocessor at a time
constexpr int kPrefillWarps = 4;
constexpr int kPrefillKeys = 64;  // one granule per warp

// A row of a tile: eight consecutive ones lie in different banks for every multiple of 16.
constexpr int row_bytes(int head_dim) {
    return head_dim * 2 + 16;
}

// Granules in flight per warp.
constexpr int decode_stages(int head_dim) {
    return head_dim > 128 ? 2 : 3;
}

// Blocks of 16 query rows per warp: what the registers hold.
constexpr int row_tiles(int head_dim) {
    return head_dim > 128 ? 1 : 2;
}
constexpr int prefill_rows(int head_dim) {
    return kPrefillWarps * 16 * row_tiles(head_dim);
}

// The rings of the warps, or what they hold when they are merged.
constexpr int decode_smem_bytes(int head_dim) {
    const int ring = kDecodeWarps * decode_stages(head_dim) * 2 * kGranule * row_bytes(head_dim);
    const int merge = kDecodeWarps * kTileHeads * (head_dim + 2) * 4;
    return ring > merge ? ring : merge;
}

// Queries, and two tiles of keys and of values.
constexpr int prefill_smem_bytes(int head_dim) {
    return (prefill_rows(head_dim) + 4 * kPrefillKeys) * row_bytes(head_dim);
}

// What a device must have for both kernels.
constexpr int kAttentionArch = 80;
constexpr int attention_smem_bytes(int head_dim) {
    const int a = decode_smem_bytes(head_dim), b = prefill_smem_bytes(head_dim);
    return a > b ? a : b;
}

}  // namespace rvllm::cuda
