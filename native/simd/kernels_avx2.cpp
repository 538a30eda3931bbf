// kSamplingAvx2: the loops of sampling over the lanes of lanes_avx2.h.
#include "lanes_avx2.h"

#include "kernels.inl"

namespace rvllm {
const SamplingKernels kSamplingAvx2 = table("avx2");
}
