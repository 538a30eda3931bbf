// Host memory: how much this process may use, and large aligned blocks of it.
#pragma once
#include <cstddef>

namespace rvllm {

size_t host_memory_total();      // of the machine, cut down to the limit of the control group
size_t host_memory_available();  // what can be touched now without swapping or meeting that limit

// Zeroed pages from the system, on a 2 MiB boundary and with huge pages where large; nullptr: refused.
void* host_alloc(size_t bytes);
void host_free(void* p, size_t bytes);

}  // namespace rvllm
