// Chooses the table of sampling loops for this machine, once; keeps each thread's working memory.
#include "kernels.h"

#include "../cpu/isa.h"
#include "scratch.h"

namespace rvllm {

const SamplingKernels* sampling_kernels() {
#if defined(__x86_64__)
    static const SamplingKernels* const chosen = isa() >= Isa::avx512 ? &kSamplingAvx512
                                                 : isa() >= Isa::avx2 ? &kSamplingAvx2
                                                                      : &kSamplingPortable;
    return chosen;
#else
    return &kSamplingPortable;
#endif
}

Scratch* thread_scratch() {
    static thread_local Scratch scratch;
    return &scratch;
}

}  // namespace rvllm
