// admit_kernel: sequences on their way to their slots, one CTA each.
#include "sampling/state.h"

namespace rvllm::cuda {
namespace {

constexpr int kThreads = 512;

template <typename T, typename U>
__device__ void copy(T* dst, const U* src, int32_t n) {
    static_assert(sizeof(T) == sizeof(U));
    for (int32_t i = threadIdx.x; i < n; i += kThreads) reinterpret_cast<U*>(dst)[i] = src[i];
}

__global__ void __launch_bounds__(kThreads)
    admit_kernel(const __grid_constant__ SamplerState state, const char* admissions, const int32_t* offsets) {
    const Admission& a = *reinterpret_cast<const Admission*>(admissions + offsets[blockIdx.x]);
    const SlotParams p = a.params;
    const SlotLists& n = p.lists;
    const int64_t slot = a.slot;
    const int32_t first = a.first_token, n_prompt = a.n_prompt, n_tokens = a.n_tokens;
    const auto* words = reinterpret_cast<const int32_t*>(&a + 1);
    if (threadIdx.x == 0) state.params[slot] = p;
    copy(state.bias_tokens + slot * kMaxLogitBias, words, n.n_bias);
    words += n.n_bias;
    copy(state.bias + slot * kMaxLogitBias, words, n.n_bias);
    words += n.n_bias;
    copy(state.end_tokens + slot * kMaxEndTokens, words, n.n_end);
    words += n.n_end;
    copy(state.word_starts + slot * (kMaxBadWordTokens + 1), words, n.n_words + 1);
    words += n.n_words + 1;
    copy(state.word_tokens + slot * kMaxBadWordTokens, words, n.n_word_tokens);
    words += n.n_word_tokens;
    copy(state.allowed + slot * state.mask_words, words, n.n_allowed);
    words += n.n_allowed;
    if (p.max_tail > 0) {
        int32_t* tail = state.tail + slot * kMaxBadWordTokens;
        const int32_t from = max(n_prompt, first + n_tokens - p.max_tail);  // outputs only
        for (int32_t i = from + threadIdx.x; i < first + n_tokens; i += kThreads) {
            tail[(i - n_prompt) % p.max_tail] = words[i - first];
        }
    }
    if (!p.penalized) return;
    uint32_t* counts = state.counts + slot * state.vocab_size;
    uint32_t* known = state.known + slot * state.mask_words;
    for (int32_t i = threadIdx.x; i < state.vocab_size; i += kThreads) counts[i] = 0;
    for (int32_t i = threadIdx.x; i < state.mask_words; i += kThreads) known[i] = 0;
    __syncthreads();
    for (int32_t i = threadIdx.x; i < n_tokens; i += kThreads) {
        const int32_t token = words[i];
        if (token < 0 || token >= state.vocab_size) continue;
        atomicOr(&known[token / 32], 1u << token % 32);
        if (first + i < n_prompt) {
            atomicOr(&counts[token], kInPrompt);
        } else {
            atomicAdd(&counts[token], 1u);
        }
    }
}

}  // namespace

cudaError_t launch_admit(const SamplerState& state, const char* admissions, const int32_t* offsets, int32_t n,
                         cudaStream_t stream) {
    if (n == 0) return cudaSuccess;
    admit_kernel<<<n, kThreads, 0, stream>>>(state, admissions, offsets);
    return cudaGetLastError();
}

}  // namespace rvllm::cuda
