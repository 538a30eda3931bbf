// kSamplingAvx512: the loops of sampling over the lanes of lanes_avx512.h.
#include "lanes_avx512.h"

#include "kernels.inl"

namespace rvllm {
const SamplingKernels kSamplingAvx512 = table("avx512");
}
