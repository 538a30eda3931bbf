// Paged attention on the CPU: what the driver hands to the kernels of one instruction set.
//
// The arithmetic of one row (one query of one head) is fixed: keys in splits of kSplitKeys, each an
// online softmax over tiles of kTileKeys in order, the splits merged in order. It does not depend
// on which rows share a tile, so any batch, prefill chunking and thread count gives the same bits.
#pragma once
#include <cstddef>
#include <cstdint>

#include "isa.h"
#include "tensor.h"

namespace rvllm {

constexpr int kTileKeys = 64;
constexpr int kSplitKeys = 1024;
constexpr int kTileRows = 64;  // rows of an item: queries times the heads that share a KV head

// What all items of one op call share.
struct AttentionTask {
    const float* q;
    float* y;
    int64_t q_stride, y_stride;
    const void* k;  // of the layer: [block][kv_head][block_size][head_dim]
    const void* v;
    const int32_t* positions;
    int32_t n_kv_heads, group, head_dim, block_size;  // group: query heads per KV head
    float scale;
};

// Some queries of one sequence, for the heads of one KV head, over some splits of their keys.
struct AttentionItem {
    const int32_t* table;  // blocks of the sequence
    int64_t cost;          // rows x keys
    float* partial;        // where the splits' states go, one after the other; nullptr: straight to y
    int32_t first, n_queries, kv_head;
    int32_t split_begin, split_end;
};

// Floats of one split's state for `rows` rows: accumulator, maximum and sum of each.
inline int64_t attention_state_floats(int64_t rows, int64_t head_dim) {
    return (rows * ((head_dim + 15) / 16 * 16 + 2) + 15) / 16 * 16;
}

// Floats that a thread needs for items of up to `rows` rows.
inline int64_t attention_scratch_floats(int64_t rows, int64_t head_dim) {
    const int64_t padded = (head_dim + 15) / 16 * 16;
    const int64_t tiles = 2 * kTileKeys * padded + padded;  // keys, values, a row of zeros
    return tiles + rows * (head_dim + 16) + 2 * attention_state_floats(rows, head_dim) + 64;
}

struct AttentionKernels {
    // By DType of the cache. `next` (may be null): the item this thread will most likely attend to next.
    void (*attend[3])(const AttentionTask&, const AttentionItem&, const AttentionItem* next, float* scratch);
    // Merges the states of splits [0, n_splits), one after the other at `partial`, and writes y.
    void (*merge)(const AttentionTask&, const AttentionItem&, float* partial, int n_splits);
};

extern const AttentionKernels attention_generic;
#if defined(__x86_64__)
extern const AttentionKernels attention_avx2;
extern const AttentionKernels attention_avx512;
#endif

}  // namespace rvllm
