// What the sampler on the device keeps of each slot, and how a sequence travels there.
//
// A slot: parameters, lists in arrays of fixed capacity, a bitmask of allowed tokens, and dense counts over
// the vocabulary, which only sequences with penalties use. The history follows the sampler's own draws.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "backend.h"

namespace rvllm::cuda {

constexpr uint32_t kInPrompt =
    0x80000000u;  // in a token's count: it is in the prompt; the rest counts outputs

// Lists that follow an Admission, and the arrays of a slot.
struct SlotLists {
    int32_t n_bias;         // tokens and values, ascending tokens
    int32_t n_end;          // tokens banned while stopping is suppressed
    int32_t n_words;        // bad words: n_words + 1 starts into their tokens
    int32_t n_word_tokens;  // of all bad words
    int32_t n_allowed;      // words of the mask; 0: every token is allowed
};

struct SlotParams {
    double temperature;
    double top_p;
    double min_p_distance;  // temperature * log(min_p): how far below the largest a token may be
    uint64_t seed;
    uint32_t choice;
    int32_t top_k;  // 0: off
    float repetition, frequency, presence;
    uint8_t greedy, penalized, has_min_p;
    int32_t max_tail;   // outputs that the longest bad word looks back
    int32_t n_outputs;  // output i is at tail[i % max_tail]
    SlotLists lists;
};

// One sequence on its way to its slot, in pinned memory; the arrays of its lists follow, each of 4-byte
// values: bias tokens, bias values, end tokens, word starts, word tokens, mask, then n_tokens tokens.
struct Admission {
    SlotParams params;
    int32_t slot;
    int32_t first_token;  // position in the sequence of the first token that follows
    int32_t n_prompt;
    int32_t n_tokens;
};

// Device memory of all slots.
struct SamplerState {
    SlotParams* params;    // [slots]
    int32_t* bias_tokens;  // [slots][kMaxLogitBias]
    float* bias;           // [slots][kMaxLogitBias]
    int32_t* end_tokens;   // [slots][kMaxEndTokens]
    int32_t* word_starts;  // [slots][kMaxBadWordTokens + 1]
    int32_t* word_tokens;  // [slots][kMaxBadWordTokens]
    int32_t* tail;         // [slots][kMaxBadWordTokens]
    uint32_t* allowed;     // [slots][mask_words]
    uint32_t* counts;      // [slots][vocab_size]
    uint32_t* known;       // [slots][mask_words] tokens with a count
    uint32_t* touched;     // [slots][mask_words] of the present step: tokens whose logits are edited
    uint32_t* banned;      // [slots][mask_words] of the present step
    int32_t* last_token;   // [slots]
    int32_t vocab_size;
    int32_t mask_words;
};

struct SampleParams {
    SamplerState state;
    const float* logits;
    int64_t logits_stride;
    const SampleRow* rows;  // pinned
    int32_t n_rows;
    SampleResult* results;  // pinned
    TopToken* tops;         // pinned [n_rows][max_top]
    int32_t max_top;
};

// admissions: pinned; the first is at offsets[0] (pinned too), in bytes.
cudaError_t launch_admit(const SamplerState& state, const char* admissions, const int32_t* offsets, int32_t n,
                         cudaStream_t stream);
// Draws all rows; n_sms and arch say how many CTAs share a row. Call setup_sample() once before.
cudaError_t launch_sample(const SampleParams& p, int n_sms, int arch, cudaStream_t stream);
cudaError_t setup_sample();

}  // namespace rvllm::cuda
