// A slot's masks, bias and penalties applied to a row, into the slot's own copy of it.
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
    __device__ const uint32_t* allowed() const { return list(state.allowed, state.mask_words); }
    __device__ const int32_t* tail() const { return list(state.tail, kMaxBadWordTokens); }
    __device__ float* edited() const { return list(state.edited, state.edited_stride); }

    __device__ bool edits(bool suppress_stop) const {
        return p.penalized || p.lists.n_allowed > 0 || p.lists.n_bias > 0 || p.lists.n_words > 0 ||
               (suppress_stop && p.lists.n_end > 0);
    }
    __device__ float masked(float x, int32_t token) const {
        if (p.lists.n_allowed == 0) return x;
        return allowed()[token / 32] >> token % 32 & 1 ? x : kNothing;
    }
    __device__ float penalized(float x, int32_t token) const {
        if (!p.penalized) return x;
        const uint32_t known = counts()[token], count = known & ~kInPrompt;
        if (known == 0) return x;
        const float repeated = x > 0 ? x / p.repetition : x * p.repetition;
        return count > 0 ? repeated - (p.frequency * static_cast<float>(count) + p.presence) : repeated;
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

__device__ inline void edit_row(const Row& row, const Slot& slot, bool suppress_stop, const Team& team) {
    const int32_t chunk = row.chunk_of_warp(team);
    float* edited = slot.edited();
    each(row, row.begin(chunk), row.end(chunk),
         [&](float x, int32_t i) { edited[i] = slot.penalized(slot.masked(x, i), i); });
    // The lists: each CTA has the tokens of its own chunks.
    const int32_t begin = row.begin(team.rank * kTeamWarps), end = row.end((team.rank + 1) * kTeamWarps - 1);
    const auto own = [&](int32_t token) { return token >= begin && token < end; };
    const SlotLists& n = slot.p.lists;
    __syncthreads();
    const int32_t* tokens = slot.list(slot.state.bias_tokens, kMaxLogitBias);
    const float* bias = slot.list(slot.state.bias, kMaxLogitBias);
    for (int32_t i = threadIdx.x; i < n.n_bias; i += kTeamThreads) {
        const int32_t token = tokens[i];
        if (!own(token) || (i > 0 && tokens[i - 1] == token)) continue;
        float x = slot.masked(row.x[token], token);
        for (int32_t j = i; j < n.n_bias && tokens[j] == token; ++j) x += bias[j];
        edited[token] = slot.penalized(x, token);
    }
    __syncthreads();
    const int32_t* ends = slot.list(slot.state.end_tokens, kMaxEndTokens);
    for (int32_t i = threadIdx.x; suppress_stop && i < n.n_end; i += kTeamThreads) {
        if (own(ends[i])) edited[ends[i]] = kNothing;
    }
    const int32_t* starts = slot.list(slot.state.word_starts, kMaxBadWordTokens + 1);
    const int32_t* words = slot.list(slot.state.word_tokens, kMaxBadWordTokens);
    for (int32_t i = threadIdx.x; i < n.n_words; i += kTeamThreads) {
        const int32_t last = words[starts[i + 1] - 1];
        if (own(last) && slot.completes(words + starts[i], starts[i + 1] - starts[i] - 1))
            edited[last] = kNothing;
    }
    team.sync();
}

// Infinities share the row equally: zeros among -inf do the same. In place or not.
__device__ inline void level_infinities(const Row& row, float* edited, const Team& team) {
    const int32_t chunk = row.chunk_of_warp(team);
    each(row, row.begin(chunk), row.end(chunk),
         [&](float x, int32_t i) { edited[i] = x == INFINITY ? 0.0f : kNothing; });
    team.sync();
}

// Takes note of a draw. By one thread.
__device__ inline void push_token(const SamplerState& state, int32_t slot, int32_t token) {
    SlotParams& p = state.params[slot];
    if (p.penalized) ++state.counts[static_cast<int64_t>(slot) * state.vocab_size + token];
    if (p.max_tail > 0) {
        state.tail[static_cast<int64_t>(slot) * kMaxBadWordTokens + p.n_outputs % p.max_tail] = token;
    }
    ++p.n_outputs;
}

}  // namespace rvllm::cuda
