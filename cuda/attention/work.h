// The work of one step's attention, cut on the host when the step is staged (no CUDA headers).
//
// A sequence with one new token goes to the decode kernel, cut along its keys into splits whose size
// depends on its own length alone. In a step of up to kFewSeqs sequences its result does not depend on the
// others; in larger ones it depends on how many warps a team has, which is chosen for the step. Other
// sequences go to the prefill kernel, cut into tiles of query rows. A query row is (token, head of the
// group): all heads that share keys are rows of one tile.
#pragma once
#include <cstddef>
#include <cstdint>

#include "step.h"

namespace rvllm::cuda {

constexpr int kWholeKeys = 1024;  // sequences up to here are not cut: adding up costs more than it saves
constexpr int kSplitKeys = 512;   // of one split, until there are kMaxSplits
constexpr int kMaxSplits = 64;
constexpr int kGranule = 16;  // keys that are loaded together: a divisor of the block size

constexpr int kItemRows = 32;  // granules of a split that are found without the block table

// Warps of a decode CTA. Teams of all of them, of two or of one take a pair of (split, tile of heads) each.
constexpr int kLogDecodeWarps = 2;
constexpr int kDecodeWarps = 1 << kLogDecodeWarps;
constexpr int kFewSeqs = 64;  // teams of all in steps up to here

// Heads of one decode tile: columns of mma.
constexpr int kMaxTileHeads = 16;
constexpr int tile_heads(int group_size) {
    return group_size > 8 ? kMaxTileHeads : 8;
}
// Decode tiles of a split.
constexpr int decode_tiles(int n_kv_heads, int group_size) {
    return n_kv_heads * ((group_size + tile_heads(group_size) - 1) / tile_heads(group_size));
}

struct DecodeItem {
    int32_t seq, token;          // sequence, row of its query
    int32_t first_key, end_key;  // of this split
    int32_t split, n_splits;
    int32_t partial;      // of the sequence's first split among all splits of the step
    int32_t table_start;  // of the sequence's blocks in its group's table
};

struct PrefillItem {
    int32_t seq, token;         // sequence, row of its first query
    int32_t first_row, n_rows;  // of this tile within the sequence; rows of the sequence
    int32_t first_position;     // of the sequence's first query
    int32_t end_key;            // keys that any row of the tile sees
    int32_t table_start;        // of the sequence's blocks in its group's table
    int32_t pad;
};

// The work of one cache group and where it lies on the device. Counts are for launches of this step; a
// captured decode launch reads them from `header`.
struct AttentionWork {
    int32_t group_size = 0;  // query heads that share a head of keys; 0: no attention in this group
    int32_t tile_rows = 0;   // query rows of a prefill tile
    int32_t n_kv_heads = 0;
    int32_t head_dim = 0;
    int32_t block_size = 0;
    int32_t max_decode = 0, max_prefill = 0;
    int32_t n_ctas = 0;       // decode: that the device runs at a time
    bool one_kernel = false;  // every sequence goes to the prefill kernel: equal bits however a prompt is cut

    int32_t* header = nullptr;  // [4]: decode items, log2 of a team's warps
    DecodeItem* decode = nullptr;
    int32_t* decode_rows =
        nullptr;  // [items][kItemRows] of the cache where granules begin, for the first head
    PrefillItem* prefill = nullptr;
    float* partial_out = nullptr;    // [splits][n_heads][head_dim] not yet divided by the sum
    float* partial_stats = nullptr;  // [splits][n_heads][2] maximum (of log2 scores), sum
    uint32_t* arrived = nullptr;     // [max_seqs][decode tiles]: splits that are done; zero between steps
    int32_t n_decode = 0, n_prefill = 0;
    int32_t log_warps = 0;  // of a team; negative: as the header says
};

// Keys of one split of a sequence with that many keys.
int32_t split_keys(int32_t kv_len);

// Most splits a step can have.
int32_t max_splits(const StepLimits& limits, int32_t block_size);
int32_t max_prefill_items(const StepLimits& limits, int32_t group_size, int32_t tile_rows);

// Cuts a step whose block tables of this group start at `table_start`; returns the counts in `work` and
// fills the arrays (max_decode, max_prefill of them).
void cut_attention(const StepInput& step, const int32_t* table_start, AttentionWork* work, DecodeItem* decode,
                   PrefillItem* prefill);

// Fills in `rows`, [n_decode][kItemRows], of decode items.
void find_decode_rows(const AttentionWork& work, const DecodeItem* decode, const int32_t* table_blocks,
                      int32_t* rows);

}  // namespace rvllm::cuda
