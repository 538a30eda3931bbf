// DeviceSampler: sequences are packed into pinned memory by admit(); sample() launches one kernel that
// unpacks what is staged, then one that draws. A ring of staging areas lets the host run ahead without
// waiting.
#include "sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace rvllm::cuda {
namespace {

constexpr double kGreedyBelow = 1e-5;     // as on the CPU
constexpr size_t kRoomForMore = 1 << 20;  // bytes of admissions beside the largest
constexpr size_t kAlign = 256;

size_t round_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

int32_t mask_words(const SamplerLimits& l) {
    return (l.vocab_size + 31) / 32;
}

// Takes arrays out of one allocation; with memory == nullptr it only measures.
size_t carve(SamplerState& s, const SamplerLimits& l, char* memory) {
    size_t used = 0;
    const size_t slots = static_cast<size_t>(l.max_slots);
    const auto take = [&](auto** array, size_t per_slot) {
        using T = std::remove_reference_t<decltype(**array)>;
        *array = memory ? reinterpret_cast<T*>(memory + used) : nullptr;
        used += round_up(slots * per_slot * sizeof(T), kAlign);
    };
    s.vocab_size = l.vocab_size;
    s.mask_words = mask_words(l);
    take(&s.params, 1);
    take(&s.bias_tokens, kMaxLogitBias);
    take(&s.bias, kMaxLogitBias);
    take(&s.end_tokens, kMaxEndTokens);
    take(&s.word_starts, kMaxBadWordTokens + 1);
    take(&s.word_tokens, kMaxBadWordTokens);
    take(&s.tail, kMaxBadWordTokens);
    take(&s.allowed, static_cast<size_t>(s.mask_words));
    take(&s.counts, static_cast<size_t>(l.vocab_size));
    take(&s.known, static_cast<size_t>(s.mask_words));
    take(&s.touched, static_cast<size_t>(s.mask_words));
    take(&s.banned, static_cast<size_t>(s.mask_words));
    take(&s.last_token, 1);
    return used;
}

size_t largest_admission(const SamplerLimits& l) {
    const size_t words = 2 * kMaxLogitBias + kMaxEndTokens + 2 * kMaxBadWordTokens + 1 +
                         static_cast<size_t>(mask_words(l)) + static_cast<size_t>(l.max_len);
    return round_up(sizeof(Admission) + 4 * words, 8);
}

// Appends 4-byte values behind an Admission.
struct Writer {
    char* at;
    template <class T>
    void put(T v) {
        static_assert(sizeof(T) == 4);
        std::memcpy(at, &v, 4);
        at += 4;
    }
    void put(const int32_t* v, size_t n) {
        if (n) std::memcpy(at, v, 4 * n);
        at += 4 * n;
    }
};

}  // namespace

size_t DeviceSampler::bytes(const SamplerLimits& limits) {
    SamplerState s{};
    return carve(s, limits, nullptr);
}

std::unique_ptr<DeviceSampler> DeviceSampler::create(const Context& context, const StepInput* step,
                                                     const float* logits, int64_t logits_stride,
                                                     const SamplerLimits& limits, char* error,
                                                     size_t error_size) {
    std::unique_ptr<DeviceSampler> s(new DeviceSampler(context, limits));
    s->step_ = step;
    s->logits_ = logits;
    s->logits_stride_ = logits_stride;
    s->pending_.resize(static_cast<size_t>(limits.max_slots));
    s->admissions_bytes_ = largest_admission(limits) + kRoomForMore;
    const size_t rows_bytes = round_up(static_cast<size_t>(limits.max_rows) * sizeof(SampleRow), kAlign);
    const size_t offsets_bytes = round_up(static_cast<size_t>(limits.max_slots) * 4, kAlign);
    const size_t staging_bytes = rows_bytes + offsets_bytes + round_up(s->admissions_bytes_, kAlign);
    const size_t device_bytes = bytes(limits);
    cudaError_t e = alloc_zeroed(&s->device_, device_bytes, context.stream);
    if (e == cudaSuccess) e = cudaHostAlloc(reinterpret_cast<void**>(&s->pinned_), kRing * staging_bytes, 0);
    for (int i = 0; i < kRing && e == cudaSuccess; ++i) {
        Staging& g = s->staging_[i];
        char* memory = s->pinned_ + static_cast<size_t>(i) * staging_bytes;
        g.rows = reinterpret_cast<SampleRow*>(memory);
        g.offsets = reinterpret_cast<int32_t*>(memory + rows_bytes);
        g.admissions = memory + rows_bytes + offsets_bytes;
        e = cudaEventCreateWithFlags(&g.read, cudaEventDisableTiming);
    }
    if (e == cudaSuccess) e = setup_sample();
    if (e == cudaSuccess) e = cudaStreamSynchronize(context.stream);
    if (e != cudaSuccess) {
        std::snprintf(error, error_size, "cannot allocate %.1f MB of device memory for the sampler: %s",
                      device_bytes / 1e6, cudaGetErrorString(e));
        return nullptr;
    }
    carve(s->state_, limits, static_cast<char*>(s->device_));
    return s;
}

DeviceSampler::~DeviceSampler() {
    cudaStreamSynchronize(context_.stream);
    for (Staging& g : staging_) {
        if (g.read) cudaEventDestroy(g.read);
    }
    if (pinned_) cudaFreeHost(pinned_);
    if (device_) cudaFree(device_);
}

const char* DeviceSampler::admit(const Sequence& seq) {
    const SamplingParams& p = seq.request->params;
    const auto known = [&](int32_t id) { return id >= 0 && id < limits_.vocab_size; };
    const auto slot = static_cast<size_t>(seq.slot);
    size_t n_word_tokens = 0;
    for (const auto& word : p.bad_words) n_word_tokens += word.size();
    if (p.logit_bias.size() > kMaxLogitBias) return "logit_bias has more entries than the device keeps";
    if (n_word_tokens > kMaxBadWordTokens) return "bad_words have more tokens than the device keeps";
    if (p.stop_token_ids.size() + p.eos_token_ids.size() > kMaxEndTokens) {
        return "stop_token_ids are more than the device keeps";
    }
    if (static_cast<int64_t>(seq.tokens.size()) > limits_.max_len)
        return "a sequence is longer than the model's";
    // Staged twice, or full: what is staged goes first.
    if (pending_[slot] || used_ + largest_admission(limits_) > admissions_bytes_) {
        if (launch_admissions() != cudaSuccess || rotate() != cudaSuccess)
            return "cannot launch an admission";
    }

    Staging& g = staging_[at_];
    g.offsets[n_admitted_] = static_cast<int32_t>(used_);
    auto* a = reinterpret_cast<Admission*>(g.admissions + used_);
    Writer w{reinterpret_cast<char*>(a + 1)};
    SlotParams d{};
    d.temperature = p.temperature;
    d.top_p = p.top_p;
    d.has_min_p = p.min_p > 0;
    d.min_p_distance = d.has_min_p ? d.temperature * std::log(static_cast<double>(p.min_p)) : 0;
    d.seed = p.seed;
    d.choice = static_cast<uint32_t>(seq.choice);
    d.top_k = std::max(p.top_k, 0);
    d.greedy = d.temperature < kGreedyBelow || d.top_k == 1;
    d.repetition = p.repetition_penalty;
    d.frequency = p.frequency_penalty;
    d.presence = p.presence_penalty;
    d.penalized = d.repetition != 1 || d.frequency != 0 || d.presence != 0;
    d.n_outputs = seq.n_output();

    std::vector<std::pair<int32_t, float>> bias;
    for (const auto& b : p.logit_bias) {
        if (known(b.first)) bias.push_back(b);
    }
    std::stable_sort(bias.begin(), bias.end(),
                     [](const auto& x, const auto& y) { return x.first < y.first; });
    for (const auto& b : bias) w.put(b.first);
    for (const auto& b : bias) w.put(b.second);
    d.lists.n_bias = static_cast<int32_t>(bias.size());

    for (int32_t id : p.stop_token_ids) {
        if (known(id)) w.put(id), ++d.lists.n_end;
    }
    for (int32_t id : p.eos_token_ids) {
        if (known(id) && !p.ignore_eos) w.put(id), ++d.lists.n_end;
    }

    const auto usable = [&](const std::vector<int32_t>& word) { return !word.empty() && known(word.back()); };
    for (const auto& word : p.bad_words) {
        if (!usable(word)) continue;
        w.put(d.lists.n_word_tokens);
        d.lists.n_word_tokens += static_cast<int32_t>(word.size());
        d.max_tail = std::max(d.max_tail, static_cast<int32_t>(word.size()) - 1);
        ++d.lists.n_words;
    }
    w.put(d.lists.n_word_tokens);
    for (const auto& word : p.bad_words) {
        if (usable(word)) w.put(word.data(), word.size());
    }

    if (std::any_of(p.allowed_token_ids.begin(), p.allowed_token_ids.end(), known)) {
        d.lists.n_allowed = mask_words(limits_);
        auto* mask = reinterpret_cast<uint32_t*>(w.at);
        std::fill_n(mask, d.lists.n_allowed, 0u);
        for (int32_t id : p.allowed_token_ids) {
            if (known(id)) mask[id / 32] |= 1u << id % 32;
        }
        w.at += 4 * d.lists.n_allowed;
    }

    const auto n = static_cast<int32_t>(seq.tokens.size());
    a->first_token = d.penalized ? 0 : std::max(seq.n_prompt, n - d.max_tail);
    a->n_tokens = std::max(0, n - a->first_token);
    a->n_prompt = seq.n_prompt;
    a->slot = seq.slot;
    a->params = d;
    w.put(seq.tokens.data() + a->first_token, static_cast<size_t>(a->n_tokens));
    used_ += round_up(static_cast<size_t>(w.at - reinterpret_cast<char*>(a)), 8);
    ++n_admitted_;
    pending_[slot] = 1;
    return nullptr;
}

cudaError_t DeviceSampler::launch_admissions() {
    const Staging& g = staging_[at_];
    const cudaError_t e = launch_admit(state_, g.admissions, g.offsets, n_admitted_, context_.stream);
    n_admitted_ = 0;
    used_ = 0;
    std::fill(pending_.begin(), pending_.end(), 0);
    return e;
}

// Goes on to the next staging area; waits where the device has not read it yet.
cudaError_t DeviceSampler::rotate() {
    const cudaError_t e = cudaEventRecord(staging_[at_].read, context_.stream);
    at_ = (at_ + 1) % kRing;
    return e == cudaSuccess ? cudaEventSynchronize(staging_[at_].read) : e;
}

cudaError_t DeviceSampler::sample(const StepInput& src, SampleResult* results, TopToken* tops) {
    Staging& g = staging_[at_];
    std::copy_n(src.sample_rows, src.n_sample_rows, g.rows);
    cudaError_t e = launch_admissions();
    SampleParams p{};
    p.state = state_;
    p.logits = logits_;
    p.logits_stride = logits_stride_;
    p.rows = g.rows;
    p.n_rows = src.n_sample_rows;
    p.results = results;
    p.tops = tops;
    p.max_top = limits_.max_top;
    if (e == cudaSuccess) e = launch_sample(p, context_.device.n_sms, context_.device.arch, context_.stream);
    return e == cudaSuccess ? rotate() : e;
}

}  // namespace rvllm::cuda
