// How long steps take, and when sequences that decode are owed time.
//
// In a step that also computes prompts, those that decode wait longer for their tokens. Short prompts that
// come one behind the other would make a chain of such steps, each with what arrived during the one before.
// So behind a step that took a quarter longer than one of decodes alone, decodes run for as long as they had
// to wait, beside no more prompts than that quarter has room for.
#pragma once
#include <algorithm>
#include <cstdint>

namespace rvllm {

class StepPace {
public:
    // A step with an id one higher than the last is scheduled; at most two are in flight.
    void begin(uint64_t id, int64_t now_us, int32_t n_decodes, int32_t n_prompt_tokens) {
        flights_[id % kMaxInFlight] = {now_us, n_decodes, n_prompt_tokens};
    }

    // The oldest step in flight is done.
    void end(uint64_t id, int64_t now_us) {
        const Flight& f = flights_[id % kMaxInFlight];
        const int64_t us = now_us - std::max(f.started_us, last_end_us_);
        last_end_us_ = now_us;
        if (f.n_prompt_tokens == 0) {
            decode_us_ = us;
            return;
        }
        const int64_t prompts_us = f.n_decodes ? us - decode_us_ : us;
        prompt_token_us_ = static_cast<double>(prompts_us) / f.n_prompt_tokens;
        if (f.n_decodes && is_long(prompts_us)) rest_until_us_ = now_us + std::min(prompts_us, kMaxRestUs);
    }

    // Prompt tokens that may run beside decodes now, the steps of ids (done, last] being in flight.
    int32_t room(uint64_t done, uint64_t last, int64_t now_us) const {
        if (!rests(done, last, now_us) || prompt_token_us_ <= 0) return INT32_MAX;
        return static_cast<int32_t>(std::min<double>(INT32_MAX, decode_us_ / (kLong * prompt_token_us_)));
    }

private:
    static constexpr int kMaxInFlight = 2;
    static constexpr int kLong = 4;  // the part of a step of decodes by which another may be longer
    static constexpr int64_t kMaxRestUs = 100000;
    struct Flight {
        int64_t started_us;
        int32_t n_decodes, n_prompt_tokens;
    };

    // Whether decodes are owed time.
    bool rests(uint64_t done, uint64_t last, int64_t now_us) const {
        for (uint64_t id = done + 1; id <= last; ++id) {
            const Flight& f = flights_[id % kMaxInFlight];
            if (f.n_decodes && is_long(static_cast<int64_t>(f.n_prompt_tokens * prompt_token_us_)))
                return true;
        }
        return now_us < rest_until_us_;
    }

    // What a step took beyond its decodes; without a step of decodes alone nothing is known.
    bool is_long(int64_t prompts_us) const { return decode_us_ > 0 && kLong * prompts_us > decode_us_; }

    Flight flights_[kMaxInFlight] = {};
    int64_t last_end_us_ = 0;
    int64_t decode_us_ = 0;       // of the last step of decodes alone
    double prompt_token_us_ = 0;  // of the last step with prompts
    int64_t rest_until_us_ = 0;
};

}  // namespace rvllm
