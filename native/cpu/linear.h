// The op `linear` on the CPU: float32 in and out, dense weights of any float type.
#pragma once
#include "../backend.h"

namespace rvllm {

Kernel cpu_find_linear(const KernelKey& key);  // fn == nullptr: none for the key

}  // namespace rvllm
