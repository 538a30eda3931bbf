// Writes events into an Outbox, in place.
#pragma once
#include "request.h"

namespace rvllm {

inline Event* add_event(Outbox* out, const Sequence* s, EventKind kind, int64_t now_us) {
    Event& e = out->events.emplace_back();
    e.request_id = s->request->id;
    e.t_us = now_us;
    e.choice = s->choice;
    e.kind = kind;
    return &e;
}

inline void set_logprob(Outbox* out, Event* e, const SampleResult* result, const TopToken* tops) {
    e->has_logprob = true;
    e->logprob = result->logprob;
    e->rank = result->rank;
    e->top_start = static_cast<uint32_t>(out->tops.size());
    e->n_top = static_cast<uint32_t>(result->n_top);
    out->tops.insert(out->tops.end(), tops, tops + result->n_top);
}

}  // namespace rvllm
