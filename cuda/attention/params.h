// What the attention kernels are launched with.
#pragma once
#include <cstdint>

#include "attention/work.h"
#include "device/divisor.h"

namespace rvllm::cuda {

struct AttentionParams {
    const void* q;
    void* y;
    int64_t q_stride, y_stride;  // elements between the rows of two tokens
    const void *k, *v;           // of the layer
    int64_t block_elements;      // of all heads of a block
    const int32_t* table_blocks;
    int32_t block_size, n_heads, n_kv_heads, group_size;
    float scale;         // softmax_scale * log2(e)
    int32_t cache_rows;  // of all blocks and heads of the layer
    // Decode: (split, tile of heads) pairs of a split, tiles of a head of keys, keys of a block.
    Divisor units, head_tiles, block_keys;
    // Decode: the preceding kernel is the prefill of the same call, which began after what both of them need.
    bool follows_prefill;
    AttentionWork work;
};

}  // namespace rvllm::cuda
