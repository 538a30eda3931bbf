// cut_attention(): decode splits in order, prefill tiles with the most keys first.
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
    const auto longer = [](const PrefillItem& a, const PrefillItem& b) { return a.end_key > b.end_key; };
    std::sort(prefill, prefill + work->n_prefill, longer);
}

}  // namespace rvllm::cuda
