// cut_attention(): decode splits and prefill tiles, those with the most keys first.
#include "attention/work.h"

#include <algorithm>

namespace rvllm::cuda {

int32_t split_keys(int32_t kv_len) {
    if (kv_len <= kWholeKeys) return kWholeKeys;
    const int32_t n_splits = std::min(kMaxSplits, (kv_len + kSplitKeys - 1) / kSplitKeys);
    const int32_t even = (kv_len + n_splits - 1) / n_splits;
    return (even + kGranule - 1) / kGranule * kGranule;
}

int32_t max_splits(const StepLimits& limits, int32_t block_size) {
    const int64_t keys = static_cast<int64_t>(limits.max_table_entries) * block_size;
    return static_cast<int32_t>(std::min<int64_t>(keys / kSplitKeys + limits.max_seqs,
                                                  static_cast<int64_t>(limits.max_seqs) * kMaxSplits));
}

int32_t max_prefill_items(const StepLimits& limits, int32_t group_size, int32_t tile_rows) {
    const int64_t rows = static_cast<int64_t>(limits.max_tokens) * group_size;
    return static_cast<int32_t>(rows / tile_rows + limits.max_seqs + 1);
}

namespace {

constexpr int kFinishGranules = 2;  // what ending a pair costs, in granules of a warp

int32_t granules_of(const DecodeItem& item) {
    return (item.end_key - item.first_key + kGranule - 1) / kGranule;
}

// The granules that the busiest team computes, of items in their order: teams take pairs there and back.
int32_t busiest_team(const AttentionWork& work, const DecodeItem* items, int32_t log_warps) {
    const int32_t units = decode_tiles(work.n_kv_heads, work.group_size);
    const int32_t n_teams = work.n_ctas * (kDecodeWarps >> log_warps), n_pairs = work.n_decode * units;
    int32_t most = 0;
    for (int32_t team = 0; team < std::min(n_teams, n_pairs); ++team) {
        int32_t sum = 0, step = 2 * (n_teams - team) - 1;
        for (int32_t pair = team; pair < n_pairs; pair += step, step = 2 * n_teams - step)
            sum += ((granules_of(items[pair / units]) - 1) >> log_warps) + 1 + kFinishGranules;
        most = std::max(most, sum);
    }
    return most;
}

// The warps of a team that are done first.
int32_t choose_team(const AttentionWork& work, const DecodeItem* items, int32_t n_seqs) {
    int32_t best = kLogDecodeWarps;
    if (n_seqs <= kFewSeqs) return best;
    int32_t least = busiest_team(work, items, best);
    for (int32_t log_warps = best - 1; log_warps >= 0; --log_warps) {
        const int32_t granules = busiest_team(work, items, log_warps);
        if (granules < least) least = granules, best = log_warps;
    }
    return best;
}

}  // namespace

void cut_attention(const StepInput& step, const int32_t* table_start, AttentionWork* work, DecodeItem* decode,
                   PrefillItem* prefill) {
    work->n_decode = work->n_prefill = 0;
    for (int32_t s = 0; s < step.n_seqs; ++s) {
        const int32_t token = step.query_start[s], n_tokens = step.query_start[s + 1] - token;
        const int32_t kv_len = step.kv_len[s], first_position = kv_len - n_tokens;
        if (n_tokens <= 0) continue;
        if (n_tokens == 1 && !work->one_kernel) {
            const int32_t keys = split_keys(kv_len), n_splits = (kv_len + keys - 1) / keys;
            const int32_t partial = work->n_decode;
            for (int32_t i = 0; i < n_splits; ++i) {
                decode[work->n_decode++] = {s, token,    i * keys, std::min(kv_len, (i + 1) * keys),
                                            i, n_splits, partial,  table_start[s]};
            }
            continue;
        }
        const int32_t n_rows = n_tokens * work->group_size;
        for (int32_t row = 0; row < n_rows; row += work->tile_rows) {
            const int32_t last = std::min(n_rows, row + work->tile_rows) - 1;
            prefill[work->n_prefill++] = {s,
                                          token,
                                          row,
                                          n_rows,
                                          first_position,
                                          first_position + last / work->group_size + 1,
                                          table_start[s],
                                          0};
        }
    }
    std::sort(decode, decode + work->n_decode, [](const DecodeItem& a, const DecodeItem& b) {
        const int32_t longer = (a.end_key - a.first_key) - (b.end_key - b.first_key);
        return longer ? longer > 0 : a.partial + a.split < b.partial + b.split;
    });
    work->log_warps = choose_team(*work, decode, step.n_seqs);
    const auto longer = [](const PrefillItem& a, const PrefillItem& b) { return a.end_key > b.end_key; };
    std::sort(prefill, prefill + work->n_prefill, longer);
}

void find_decode_rows(const AttentionWork& work, const DecodeItem* decode, const int32_t* table_blocks,
                      int32_t* rows) {
    for (int32_t i = 0; i < work.n_decode; ++i, rows += kItemRows) {
        const DecodeItem& item = decode[i];
        const int32_t* block = table_blocks + item.table_start + item.first_key / work.block_size;
        int32_t offset = item.first_key % work.block_size;
        const int32_t n = std::min(kItemRows, granules_of(item));
        for (int32_t g = 0; g < n; ++g, offset += kGranule) {
            if (offset == work.block_size) ++block, offset = 0;
            rows[g] = *block * work.n_kv_heads * work.block_size + offset;
        }
    }
}

}  // namespace rvllm::cuda
