// The sampler of a bound plan on the device: its memory, the way of sequences into their slots, the launch.
#pragma once
#include <memory>
#include <vector>

#include "context.h"
#include "sampling/state.h"

namespace rvllm::cuda {

class DeviceSampler {
public:
    // Device memory that create() allocates.
    static size_t bytes(const SamplerLimits& limits);
    // nullptr: `error` says what failed.
    static std::unique_ptr<DeviceSampler> create(const Context& context, const StepInput* step,
                                                 const float* logits, int64_t logits_stride,
                                                 const SamplerLimits& limits, char* error, size_t error_size);
    ~DeviceSampler();

    const StepInput* step() const { return step_; }
    int32_t* last_token() const { return state_.last_token; }
    // Puts a sequence on its way; it arrives before the next sample() draws. nullptr, or why it cannot.
    const char* admit(const Sequence& seq);
    cudaError_t sample(const StepInput& src, SampleResult* results, TopToken* tops);

private:
    static constexpr int kRing = 4;  // sample() calls whose inputs may be on their way

    // Pinned memory of one sample() call and the admissions before it.
    struct Staging {
        SampleRow* rows;
        int32_t* offsets;  // of the admissions
        char* admissions;
        cudaEvent_t read = nullptr;
    };

    DeviceSampler(const Context& context, const SamplerLimits& limits) : context_(context), limits_(limits) {}
    cudaError_t launch_admissions();
    cudaError_t rotate();

    const Context& context_;
    const StepInput* step_ = nullptr;
    SamplerLimits limits_;
    SamplerState state_{};
    const float* logits_ = nullptr;
    int64_t logits_stride_ = 0;
    void* device_ = nullptr;
    char* pinned_ = nullptr;
    Staging staging_[kRing];
    int at_ = 0;
    size_t admissions_bytes_ = 0;  // capacity of a Staging
    size_t used_ = 0;
    int32_t n_admitted_ = 0;
    std::vector<uint8_t> pending_;  // by slot: an admission is staged
};

}  // namespace rvllm::cuda
