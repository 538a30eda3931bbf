// The attention kernels for portable C++.
#include "attention_impl.h"

namespace rvllm {

const AttentionKernels attention_generic = kAttention;

}  // namespace rvllm
