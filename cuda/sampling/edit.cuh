// A slot's masks, bias and penalties: the tokens that they touch are marked in a bitmap and their values
// written beside the row, so that the passes over a row read little more than its logits.
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

// The row with the slot's edits; every CTA edits its own part.
__device__ inline Row edit_row(const Row& row, const Slot& slot, bool suppress_stop, const Team& team) {
    float* edited = slot.edited();
    uint32_t* touched = slot.touched();
    const SlotLists& n = slot.p.lists;
    const int32_t begin = row.begin(team), end = row.end(team), n_words = begin < end ? (end + 31) / 32 : 0;
    const auto own = [&](int32_t token) { return token >= begin && token < end; };
    const auto touch = [&](int32_t token) { atomicOr(&touched[token / 32], 1u << token % 32); };
    const int32_t* bias_tokens = slot.list(slot.state.bias_tokens, kMaxLogitBias);
    const float* bias = slot.list(slot.state.bias, kMaxLogitBias);
    const int32_t* ends = slot.list(slot.state.end_tokens, kMaxEndTokens);
    const int32_t* starts = slot.list(slot.state.word_starts, kMaxBadWordTokens + 1);
    const int32_t* words = slot.list(slot.state.word_tokens, kMaxBadWordTokens);

    for (int32_t w = begin / 32 + threadIdx.x; w < n_words; w += kTeamThreads) {
        touched[w] = (slot.p.penalized ? slot.known()[w] : 0) | (n.n_allowed > 0 ? ~slot.allowed()[w] : 0);
        if (w == row.n / 32) touched[w] &= (1u << row.n % 32) - 1;
    }
    __syncthreads();
    for (int32_t w = begin / 32 + threadIdx.x; w < n_words; w += kTeamThreads) {
        for (uint32_t bits = touched[w]; bits; bits &= bits - 1) {
            const int32_t i = w * 32 + __ffs(static_cast<int>(bits)) - 1;
            if (i < end) edited[i] = slot.penalized(slot.masked(row.x[i], i), i);
        }
    }
    __syncthreads();
    for (int32_t i = threadIdx.x; i < n.n_bias; i += kTeamThreads) {
        const int32_t token = bias_tokens[i];
        if (!own(token) || (i > 0 && bias_tokens[i - 1] == token)) continue;
        float x = slot.masked(row.x[token], token);
        for (int32_t j = i; j < n.n_bias && bias_tokens[j] == token; ++j) x += bias[j];
        edited[token] = slot.penalized(x, token);
        touch(token);
    }
    __syncthreads();
    const auto ban = [&](int32_t token) {
        edited[token] = kNothing;
        touch(token);
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
    result.edited = edited;
    return result;
}

// The row in which infinities share equally, as zeros among -inf do.
__device__ inline Row level_infinities(const Row& row, float* edited, const Team& team) {
    const int32_t chunk = row.chunk_of_warp(team);
    each(row, row.begin(chunk), row.end(chunk), [&](float x, int32_t i) {
        if (i < row.n) edited[i] = x == INFINITY ? 0.0f : kNothing;
    });
    team.sync();
    return Row::of(edited, row.n, team);
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
