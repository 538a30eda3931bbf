// The input of one step: one POD of arrays at addresses that never change, so that a captured
// graph can read them. The scheduler writes it, the backend reads it.
//
// Every sequence of a step has a query length >= 1: prefill chunks, decodes, verification of
// drafted tokens and prompt log-probabilities are one case. Logits come from an index list.
#pragma once
#include <cstddef>
#include <cstdint>

namespace rvllm {

constexpr int kMaxCacheGroups = 4;
constexpr int kNoSlot = -1;
constexpr int kMaxLateReturns = 64;  // blocks that come back in a step with returns_late

// Where the keys and values of one cache group live, and which blocks each sequence has.
// Block b of layer l: keys at k + ((l * n_blocks + b) * n_kv_heads * block_size * head_dim),
// laid out [kv_head][block_size][head_dim]; values likewise. A layer's caches are contiguous, and
// one head's keys of a block are one contiguous run.
struct KvCacheView {
    void* k = nullptr;
    void* v = nullptr;
    int32_t n_blocks = 0;
    int32_t block_size = 16;
    int32_t n_kv_heads = 0;
    int32_t head_dim = 0;
    int32_t dtype = 0;  // DType
    int32_t n_layers = 0;

    // The second tier, in host memory that the backend reads and writes. It keeps a block's layers
    // together: [n_host_blocks][keys, values][n_layers][n_kv_heads][block_size][head_dim].
    void* host = nullptr;
    int32_t n_host_blocks = 0;
};

// Block tables of one cache group, one after the other: blocks of sequence s are
// blocks[start[s]] .. blocks[start[s + 1]].
struct BlockTables {
    int32_t* start = nullptr;   // [max_seqs + 1]
    int32_t* blocks = nullptr;  // [max_table_entries]
};

enum class RowKind : uint8_t {
    sample = 0,  // draw a token
    score = 1,   // log-probability of `target` (prompt log-probabilities)
};

// What to do with one row of logits. Several rows may read the same logits (n choices).
struct SampleRow {
    int32_t logit_row;     // row of the logits matrix
    int32_t slot;          // sampler slot of the sequence; last_token[slot] gets the draw
    int32_t target;        // token to score; -1 when sampling
    int32_t n_top;         // alternatives wanted beside the token itself; -1: no log-probability
    uint32_t token_index;  // output tokens before this one: the counter of the random generator; when
                           // scoring: the position of `target` in the prompt
    RowKind kind;
    uint8_t suppress_stop;  // 1 while fewer than min_tokens are out
    uint8_t pad[2];
    void* seq;  // Sequence*, opaque to backends
};

// A block to copy before the step runs: on write, or between the tiers. Block n_blocks + h is block h of
// the second tier. Copies run in order: one may read, or write over, what one before it wrote.
struct BlockCopy {
    int32_t group, src, dst;
};

struct StepInput {
    int32_t n_tokens = 0;
    int32_t n_seqs = 0;
    int32_t n_rows = 0;         // rows of logits
    int32_t n_sample_rows = 0;  // SampleRows
    int32_t n_copies = 0;
    int32_t n_admitted = 0;
    int32_t max_query_len = 0;
    int32_t max_kv_len = 0;
    // 1: its ops neither read nor write the blocks that come back from the second tier in this step. They may
    // arrive while it runs; they are there before the next step's copies.
    int32_t returns_late = 0;
    uint64_t step_id = 0;

    int32_t* token_ids = nullptr;          // [T]; -1 - slot: the token last drawn for that sampler slot
    int32_t* positions = nullptr;          // [T]
    int32_t* slots[kMaxCacheGroups] = {};  // [T] block * block_size + offset to write; kNoSlot: none
    int32_t* query_start = nullptr;        // [S + 1] first token of each sequence
    int32_t* kv_len = nullptr;             // [S] keys of the sequence once this step's are written
    int32_t* logit_rows = nullptr;         // [R] token index
    BlockTables tables[kMaxCacheGroups];
    SampleRow* sample_rows = nullptr;
    BlockCopy* copies = nullptr;
    void** admitted = nullptr;      // [n_admitted] Sequence* whose sampler slot must be (re)set first
    int32_t* last_token = nullptr;  // [max_seqs] by sampler slot; shared by all StepInputs
};

// Capacities of a StepInput; everything is allocated once from them.
struct StepLimits {
    int32_t max_tokens = 0;         // token budget of a step
    int32_t max_seqs = 0;           // running sequences
    int32_t max_rows = 0;           // rows of logits
    int32_t max_table_entries = 0;  // block-table entries of all sequences of a step
    int32_t max_moves = 0;          // blocks into the second tier, and as many out of it
    int32_t n_groups = 1;

    int32_t max_copies() const { return max_seqs + (max_moves ? 2 * max_moves + kMaxLateReturns : 0); }
};

// Bytes of the one allocation behind a StepInput of these limits.
size_t step_input_bytes(const StepLimits& limits);
// Points the arrays of `step` into `memory` (step_input_bytes() of it, 64-byte aligned).
void step_input_layout(StepInput* step, const StepLimits& limits, void* memory);
// Copies what the forward reads, used prefixes only, into the arrays of `dst`: a plan is bound to
// one StepInput, the scheduler writes another. What only the sampler reads stays behind.
void step_copy(StepInput* dst, const StepInput* src, const StepLimits& limits);

}  // namespace rvllm
