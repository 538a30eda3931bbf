// What can be asked about a sequence from its own fields and its request's.
#pragma once
#include <algorithm>

#include "request.h"

namespace rvllm {

// Tokens, those included that only the device knows.
inline int32_t total_len(const Sequence* s) {
    return static_cast<int32_t>(s->tokens.size()) + s->n_in_flight;
}

// Whether only its last token is not computed, and its prompt is.
inline bool is_decode(const Sequence* s) {
    return s->n_computed >= s->n_prompt && s->n_computed + 1 == total_len(s);
}

inline bool is_forked(const Request* r) {
    return r->params.n == 1 || r->sequences[1].state != SeqState::waiting;
}

// Whether other choices start where its prompt ends.
inline bool will_fork(const Sequence* s) {
    return s->choice == 0 && !is_forked(s->request);
}

// Leading tokens that may come from the cache: not the last, nor prompt positions still to be scored.
inline int32_t reusable_len(const Sequence* s) {
    if (s->request->params.n_prompt_logprobs >= 0 && s->n_scored < s->n_prompt - 1) return s->n_scored;
    return static_cast<int32_t>(s->tokens.size()) - 1;
}

// Whether a token ends the sequence that draws it.
inline bool ends(const Request* r, int32_t token) {
    const auto has = [&](const std::vector<int32_t>& ids) {
        return std::find(ids.begin(), ids.end(), token) != ids.end();
    };
    return (!r->params.ignore_eos && has(r->params.eos_token_ids)) || has(r->params.stop_token_ids);
}

}  // namespace rvllm
