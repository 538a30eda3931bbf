// The attention kernels for AVX2, FMA and F16C.
#include "attention_impl.h"

namespace rvllm {

const AttentionKernels attention_avx2 = kAttention;

}  // namespace rvllm
