// Requests and sequences: what the API asked for, and one running choice of it.
//
// A Request is built on the caller's thread, then owned by the engine thread alone until it is
// freed there. Its Sequences (one per choice) live inside it and die with it.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace rvllm {

struct SamplingParams {
    float temperature = 1.0f;  // 0: greedy
    float top_p = 1.0f;
    float min_p = 0.0f;
    float repetition_penalty = 1.0f;
    float frequency_penalty = 0.0f;
    float presence_penalty = 0.0f;
    int32_t top_k = 0;  // 0: off
    uint64_t seed = 0;
    int32_t n = 1;
    int32_t max_tokens = 16;
    int32_t min_tokens = 0;
    int32_t n_logprobs = -1;         // alternatives per output token; -1: none, 0: the token's own
    int32_t n_prompt_logprobs = -1;  // the same for prompt tokens
    bool ignore_eos = false;
    std::vector<int32_t> eos_token_ids;   // from the model; not used when ignore_eos
    std::vector<int32_t> stop_token_ids;  // the request's own
    std::vector<std::pair<int32_t, float>> logit_bias;
    std::vector<int32_t> allowed_token_ids;       // empty: all
    std::vector<std::vector<int32_t>> bad_words;  // token sequences that may not be completed
};

enum class FinishReason : uint8_t {
    none = 0,
    stop = 1,      // an end or stop token; Event::token is it
    length = 2,    // max_tokens or the model's context
    abort = 3,     // cancelled
    error = 4,     // the step failed or the logits were not numbers
    deadline = 5,  // not finished in time
};

enum class SeqState : uint8_t { waiting, running, preempted, finished };

struct Request;

struct Sequence {
    Request* request = nullptr;
    int32_t choice = 0;
    SeqState state = SeqState::waiting;
    FinishReason finish = FinishReason::none;
    std::vector<int32_t> tokens;  // prompt, then the outputs the host knows; capacity reserved
    int32_t n_prompt = 0;
    int32_t n_computed = 0;       // tokens whose keys and values are in the cache once all steps in
                                  // flight have run
    int32_t n_in_flight = 0;      // draws of steps in flight: outputs the host does not know yet
    int32_t n_cached = 0;         // prompt tokens found in the prefix cache at the first admission
    int32_t slot = -1;            // sampler slot while running
    std::vector<int32_t> blocks;  // block table (cache group 0)
    int32_t n_promised = 0;       // blocks of the prompt that it has not taken yet
    int32_t n_writable = 0;       // the next positions, up to here, are in blocks that no one else holds
    int32_t n_hashed = 0;         // leading full blocks whose hash is known
    uint64_t last_step = 0;       // last step that reads or writes what this sequence holds

    // The scheduler's own.
    uint64_t order = 0;      // arrival of the request, then choice
    int32_t priority = 0;    // 0 under first-come-first-served
    int32_t max_len = 0;     // tokens at which it ends by length
    int32_t n_scored = 0;    // prompt positions whose log-probability was scheduled
    int32_t queue_pos = -1;  // in the queue of waiting sequences; -1: not there
    bool releasing = false;  // gives back what it holds once last_step is done

    int32_t n_output() const { return static_cast<int32_t>(tokens.size()) - n_prompt; }
};

struct Request {
    uint64_t id = 0;
    int32_t priority = 0;      // lower first, under the priority policy
    int64_t arrival_us = 0;    // monotonic
    int64_t deadline_us = 0;   // 0: none
    uint64_t extras_hash = 0;  // cache salt, adapter, media: part of every prefix hash
    SamplingParams params;
    std::vector<Sequence> sequences;  // n choices; [0] runs the prompt, the others fork from it
    int32_t n_unfinished = 0;
    bool started = false;
    int32_t n_releasing = 0;    // sequences that wait for steps in flight before they let go
    int32_t deadline_pos = -1;  // in the scheduler's queue of deadlines; -1: not there
};

// What the sampler says about one SampleRow.
struct SampleResult {
    int32_t token = -1;  // the draw, or the target of a scored row
    int32_t rank = 0;    // 1 + number of tokens with a larger raw logit; 0 when not asked for
    float logprob = 0;   // of the raw logits
    int32_t n_top = 0;
    uint8_t failed = 0;  // the logits held a NaN, or nothing was allowed
};

struct TopToken {
    int32_t token;
    float logprob;
};

enum class EventKind : uint8_t {
    started,         // first scheduled; `token` = prompt tokens found in the prefix cache
    token,           // one output token, perhaps the last (finish != none)
    prompt_logprob,  // log-probability of prompt token number `index`
    finished,        // ended without a further token
};

struct Event {
    uint64_t request_id = 0;
    int64_t t_us = 0;
    int32_t choice = 0;
    EventKind kind = EventKind::token;
    FinishReason finish = FinishReason::none;
    bool has_logprob = false;
    int32_t token = -1;
    int32_t index = 0;
    float logprob = 0;
    int32_t rank = 0;
    uint32_t top_start = 0;  // into Outbox::tops
    uint32_t n_top = 0;
};

// Everything a step tells the outside, in order.
struct Outbox {
    std::vector<Event> events;
    std::vector<TopToken> tops;
};

}  // namespace rvllm
