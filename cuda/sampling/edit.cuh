// A slot's masks, bias and penalties: the tokens that they touch are marked in a bitmap once a step, their
// values are computed wherever a pass reads them, so that the passes read little more than a row's logits.
#pragma once
#include "sampling/row.cuh"
#include "sampling/state.h"

namespace rvllm::cuda {

struct Slot {
    const SamplerState& state;
    const SlotParams& p;
    int32_t index;

    template <typename T>
    __device__ T* list(T* of_all, int64_t stride) const {
        return of_all + index * stride;
    }
    __device__ const uint32_t* counts() const { return list(state.counts, state.vocab_size); }
    __device__ const uint32_t* known() const { return list(state.known, state.mask_words); }
    __device__ uint32_t* touched() const { return list(state.touched, state.mask_words); }
    __device__ uint32_t* banned() const { return list(state.banned, state.mask_words); }
    __device__ const uint32_t* allowed() const { return list(state.allowed, state.mask_words); }
    __device__ const int32_t* tail() const { return list(state.tail, kMaxBadWordTokens); }

    __device__ bool edits(bool suppress_stop) const {
        return p.penalized || p.lists.n_allowed > 0 || p.lists.n_bias > 0 || p.lists.n_words > 0 ||
               (suppress_stop && p.lists.n_end > 0);
    }
    // Whether all but the last token of bad word w are the last outputs.
    __device__ bool completes(const int32_t* word, int32_t n_before) const {
        if (n_before > p.n_outputs) return false;
        for (int32_t j = 0; j < n_before; ++j) {
            if (tail()[(p.n_outputs - n_before + j) % p.max_tail] != word[j]) return false;
        }
        return true;
    }
};

// The row with the slot's edits; every CTA marks its own part. `edits`: shared memory of this CTA.
__device__ inline Row edit_row(const Row& row, const Slot& slot, bool suppress_stop, const Team& team,
                               Edits& edits) {
    uint32_t *touched = slot.touched(), *banned = slot.banned();
    const SlotLists& n = slot.p.lists;
    const int32_t begin = row.begin(team), end = row.end(team), n_words = begin < end ? (end + 31) / 32 : 0;
    const auto own = [&](int32_t token) { return token >= begin && token < end; };
    const auto mark = [](uint32_t* bits, int32_t token) { atomicOr(&bits[token / 32], 1u << token % 32); };
    const int32_t* bias_tokens = slot.list(slot.state.bias_tokens, kMaxLogitBias);
    const int32_t* ends = slot.list(slot.state.end_tokens, kMaxEndTokens);
    const int32_t* starts = slot.list(slot.state.word_starts, kMaxBadWordTokens + 1);
    const int32_t* words = slot.list(slot.state.word_tokens, kMaxBadWordTokens);

    if (threadIdx.x == 0) {
        edits = {banned,
                 slot.counts(),
                 bias_tokens,
                 slot.list(slot.state.bias, kMaxLogitBias),
                 n.n_bias,
                 slot.p.repetition,
                 slot.p.frequency,
                 slot.p.presence,
                 slot.p.penalized != 0};
    }
    for (int32_t w = begin / 32 + threadIdx.x; w < n_words; w += kTeamThreads) {
        const uint32_t in_row = w == row.n / 32 ? (1u << row.n % 32) - 1 : ~0u;
        banned[w] = n.n_allowed > 0 ? ~slot.allowed()[w] & in_row : 0;
        touched[w] = banned[w] | (slot.p.penalized ? slot.known()[w] & in_row : 0);
    }
    __syncthreads();
    for (int32_t i = threadIdx.x; i < n.n_bias; i += kTeamThreads) {
        if (own(bias_tokens[i])) mark(touched, bias_tokens[i]);
    }
    const auto ban = [&](int32_t token) {
        mark(banned, token);
        mark(touched, token);
    };
    for (int32_t i = threadIdx.x; suppress_stop && i < n.n_end; i += kTeamThreads) {
        if (own(ends[i])) ban(ends[i]);
    }
    for (int32_t i = threadIdx.x; i < n.n_words; i += kTeamThreads) {
        const int32_t last = words[starts[i + 1] - 1];
        if (own(last) && slot.completes(words + starts[i], starts[i + 1] - starts[i] - 1)) ban(last);
    }
    team.sync();
    Row result = row;
    result.touched = touched;
    result.edits = &edits;
    return result;
}

// Takes note of a draw. By one thread.
__device__ inline void push_token(const SamplerState& state, int32_t slot, int32_t token) {
    SlotParams& p = state.params[slot];
    if (p.penalized) {
        ++state.counts[static_cast<int64_t>(slot) * state.vocab_size + token];
        state.known[static_cast<int64_t>(slot) * state.mask_words + token / 32] |= 1u << token % 32;
    }
    if (p.max_tail > 0) {
        state.tail[static_cast<int64_t>(slot) * kMaxBadWordTokens + p.n_outputs % p.max_tail] = token;
    }
    ++p.n_outputs;
}

}  // namespace rvllm::cuda
