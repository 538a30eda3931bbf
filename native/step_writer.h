// Writes the scheduler's decisions into a StepInput: one call per sequence, one per row of logits.
#pragma once
#include <algorithm>
#include <cstring>

#include "request.h"
#include "step.h"

namespace rvllm {

inline void clear_step(StepInput* step, uint64_t step_id) {
    step->n_tokens = step->n_seqs = step->n_rows = step->n_sample_rows = 0;
    step->n_copies = step->n_admitted = step->max_query_len = step->max_kv_len = 0;
    step->returns_late = 0;
    step->step_id = step_id;
    step->query_start[0] = 0;
    step->tables[0].start[0] = 0;
}

// A block to copy before the step runs, behind those that are there.
inline void add_copy(StepInput* step, int32_t src, int32_t dst) {
    step->copies[step->n_copies++] = {0, src, dst};
}

// The next n tokens of `s`, whose blocks reach that far. A token the host does not know yet is read
// from the sampler slot.
inline void add_query(StepInput* step, const Sequence& s, int32_t n, int32_t block_size) {
    const int32_t n_known = static_cast<int32_t>(s.tokens.size());
    const int32_t kv_len = s.n_computed + n;
    int32_t t = step->n_tokens;
    int32_t block = s.n_computed / block_size;
    int32_t offset = s.n_computed - block * block_size;
    for (int32_t p = s.n_computed; p < kv_len; ++p, ++t) {
        step->token_ids[t] = p < n_known ? s.tokens[p] : -1 - s.slot;
        step->positions[t] = p;
        step->slots[0][t] = s.blocks[block] * block_size + offset;
        if (++offset == block_size) {
            offset = 0;
            ++block;
        }
    }
    const int32_t i = step->n_seqs++;
    const int32_t n_blocks = block + (offset > 0);
    BlockTables& tables = step->tables[0];
    std::memcpy(tables.blocks + tables.start[i], s.blocks.data(), n_blocks * sizeof(int32_t));
    tables.start[i + 1] = tables.start[i] + n_blocks;
    step->query_start[i + 1] = step->n_tokens = t;
    step->kv_len[i] = kv_len;
    step->max_query_len = std::max(step->max_query_len, n);
    step->max_kv_len = std::max(step->max_kv_len, kv_len);
}

// A row of logits for token `token` of the step.
inline int32_t add_logit_row(StepInput* step, int32_t token) {
    step->logit_rows[step->n_rows] = token;
    return step->n_rows++;
}

// A draw for `s` from a row of logits.
inline void add_draw(StepInput* step, Sequence* s, int32_t logit_row) {
    const SamplingParams& p = s->request->params;
    const int32_t n_before = s->n_output() + s->n_in_flight;
    SampleRow& row = step->sample_rows[step->n_sample_rows++];
    row.logit_row = logit_row;
    row.slot = s->slot;
    row.target = -1;
    row.n_top = p.n_logprobs;
    row.token_index = static_cast<uint32_t>(n_before);
    row.kind = RowKind::sample;
    row.suppress_stop = n_before < p.min_tokens;
    row.seq = s;
    ++s->n_in_flight;
}

// The log-probability of the prompt token behind `position`, which is token `token` of the step.
inline void add_score(StepInput* step, Sequence* s, int32_t position, int32_t token) {
    SampleRow& row = step->sample_rows[step->n_sample_rows++];
    row.logit_row = add_logit_row(step, token);
    row.slot = s->slot;
    row.target = s->tokens[position + 1];
    row.n_top = s->request->params.n_prompt_logprobs;
    row.token_index = static_cast<uint32_t>(position + 1);
    row.kind = RowKind::score;
    row.suppress_stop = 0;
    row.seq = s;
}

}  // namespace rvllm
