// The op `embed` on the CPU: rows of a dense table, in the layout that `linear` uses, as float32.
#pragma once
#include "../backend.h"

namespace rvllm {

Kernel cpu_find_embed(const KernelKey& key);  // fn == nullptr: none for the key

}  // namespace rvllm
