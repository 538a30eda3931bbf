// kSamplingPortable: the loops of sampling over the lanes of lanes_portable.h.
#include "lanes_portable.h"

#include "kernels.inl"

namespace rvllm {
const SamplingKernels kSamplingPortable = table("portable");
}
