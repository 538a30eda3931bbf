// What the sampler keeps of one running sequence: its parameters, and as much of its history as they
// ask for. Everything is allocated by reset(); push() only writes.
//
// Token counts are sparse: dense arrays of distinct ids and output counts, found through an
// open-addressing table of twice their number.
#pragma once
#include <algorithm>
#include <cstdint>
#include <new>
#include <vector>

#include "request.h"

namespace rvllm {

class TokenCounts {
public:
    void reset(int64_t max_distinct) {
        size_t size = 16;
        while (size < 2 * static_cast<size_t>(max_distinct)) size *= 2;
        table_.assign(size, 0);
        ids_.clear();
        counts_.clear();
        ids_.reserve(static_cast<size_t>(max_distinct));
        counts_.reserve(static_cast<size_t>(max_distinct));
    }

    // Counts `n` more outputs of a token; 0 only makes it known (a prompt token).
    void add(int32_t token, int32_t n) {
        const size_t mask = table_.size() - 1;
        size_t i = static_cast<uint32_t>(token) * 0x9E3779B1u & mask;
        for (; table_[i] != 0; i = (i + 1) & mask) {
            const size_t at = static_cast<size_t>(table_[i] - 1);
            if (ids_[at] == token) {
                counts_[at] += n;
                return;
            }
        }
        if (ids_.size() == ids_.capacity()) return;  // more tokens than were announced
        ids_.push_back(token);
        counts_.push_back(n);
        table_[i] = static_cast<int32_t>(ids_.size());
    }

    const int32_t* ids() const { return ids_.data(); }
    const int32_t* counts() const { return counts_.data(); }
    int64_t size() const { return static_cast<int64_t>(ids_.size()); }

private:
    std::vector<int32_t> ids_, counts_;
    std::vector<int32_t> table_;  // position in ids_ + 1; 0: free
};

class SamplerSlot {
public:
    double temperature = 1, top_p = 1, min_p = 0;
    int64_t top_k = 0;
    uint64_t seed = 0;
    uint32_t choice = 0;
    float repetition = 1, frequency = 0, presence = 0;
    bool penalized = false;  // `counts` is kept
    TokenCounts counts;
    std::vector<int32_t> allowed;     // empty: all
    std::vector<int32_t> end_tokens;  // banned while stopping is suppressed
    std::vector<std::pair<int32_t, float>> bias;
    std::vector<std::vector<int32_t>> bad_words;
    std::vector<int32_t> tail;  // last outputs, as many as the longest bad word needs
    size_t max_tail = 0;

    // Takes over a sequence at its present length. False: out of memory.
    bool reset(const Sequence& seq, int64_t vocab) noexcept {
        try {
            const SamplingParams& p = seq.request->params;
            temperature = p.temperature;
            top_p = p.top_p;
            min_p = p.min_p;
            top_k = p.top_k > 0 ? p.top_k : 0;
            seed = p.seed;
            choice = static_cast<uint32_t>(seq.choice);
            repetition = p.repetition_penalty;
            frequency = p.frequency_penalty;
            presence = p.presence_penalty;
            copy_lists(p, vocab);
            penalized = repetition != 1 || frequency != 0 || presence != 0;
            counts.reset(penalized ? std::min<int64_t>(vocab, seq.n_prompt + std::max(p.max_tokens, 0) + 1)
                                   : 0);
            for (size_t i = 0; i < seq.tokens.size(); ++i) {
                const bool output = static_cast<int64_t>(i) >= seq.n_prompt;
                if (penalized) counts.add(seq.tokens[i], output ? 1 : 0);
                if (output) push_tail(seq.tokens[i]);
            }
            return true;
        } catch (const std::bad_alloc&) {
            return false;
        }
    }

    bool edits(bool suppress_stop) const {
        return penalized || !allowed.empty() || !bias.empty() || !bad_words.empty() ||
               (suppress_stop && !end_tokens.empty());
    }

    void push(int32_t token) {
        if (penalized) counts.add(token, 1);
        push_tail(token);
    }

    // Whether all but the last token of a bad word are the last outputs.
    bool completes(const std::vector<int32_t>& word) const {
        const size_t n = word.size() - 1;
        return n <= tail.size() &&
               std::equal(word.begin(), word.end() - 1, tail.end() - static_cast<int64_t>(n));
    }

private:
    void copy_lists(const SamplingParams& p, int64_t vocab) {
        const auto known = [vocab](int32_t id) { return id >= 0 && id < vocab; };
        allowed.clear();
        std::copy_if(p.allowed_token_ids.begin(), p.allowed_token_ids.end(), std::back_inserter(allowed),
                     known);
        end_tokens.clear();
        std::copy_if(p.stop_token_ids.begin(), p.stop_token_ids.end(), std::back_inserter(end_tokens), known);
        if (!p.ignore_eos) {
            std::copy_if(p.eos_token_ids.begin(), p.eos_token_ids.end(), std::back_inserter(end_tokens),
                         known);
        }
        bias.clear();
        for (const auto& b : p.logit_bias) {
            if (known(b.first)) bias.push_back(b);
        }
        bad_words.clear();
        max_tail = 0;
        for (const auto& word : p.bad_words) {
            if (word.empty() || !known(word.back())) continue;
            bad_words.push_back(word);
            max_tail = std::max(max_tail, word.size() - 1);
        }
        tail.clear();
        tail.reserve(max_tail);
    }

    void push_tail(int32_t token) {
        if (max_tail == 0) return;
        if (tail.size() == max_tail) tail.erase(tail.begin());
        tail.push_back(token);
    }
};

}  // namespace rvllm
