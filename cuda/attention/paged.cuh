// Paged keys and values through tensor maps (sm_90): 16 keys by 64 columns per box, 128-byte swizzle.
//
// A map's rows are those of one layer's cache: [block][head][key of the block], its columns the head's. A row
// of D elements lies in shared memory as chunks of 64, each chunk a tile of its own; columns that are not
// there, and rows behind the cache, arrive as zeros.
#pragma once
#include "attention/attention.h"
#include "attention/params.h"
#include "device/bulk.cuh"

namespace rvllm::cuda {

template <int D>
constexpr int kChunks = chunks(D);

// Byte offset of 8 elements in a tile of 128-byte rows, as the swizzle puts them.
__device__ __forceinline__ uint32_t swizzled(int row, int piece) {
    return row * 128 + ((piece ^ row % 8) << 4);
}

// Row of the map of the first key of a granule.
__device__ __forceinline__ int cache_row(const AttentionParams& p, int block, int kv_head, int key) {
    return (block * p.n_kv_heads + kv_head) * p.block_size + key % p.block_size;
}

}  // namespace rvllm::cuda
