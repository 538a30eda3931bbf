// The attention kernels for AVX512.
#include "attention_impl.h"

namespace rvllm {

const AttentionKernels attention_avx512 = kAttention;

}  // namespace rvllm
