// Process-wide thread pools, one per size, for library calls that name a number of threads.
#pragma once
#include "cpu/pool.h"

namespace rvllm {

constexpr int kMaxSharedThreads = 256;

// Made at the first call and kept. Lock-free, so that a fork at any moment leaves it usable.
ThreadPool* shared_pool(int n_threads);

}  // namespace rvllm
