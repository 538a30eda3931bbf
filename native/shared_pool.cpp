// shared_pool(): a table of pools, filled by compare and exchange.
#include "shared_pool.h"

#include <algorithm>
#include <atomic>

namespace rvllm {

ThreadPool* shared_pool(int n_threads) {
    static std::atomic<ThreadPool*> pools[kMaxSharedThreads + 1];
    n_threads = std::clamp(n_threads, 1, kMaxSharedThreads);
    ThreadPool* pool = pools[n_threads].load(std::memory_order_acquire);
    if (pool) return pool;
    ThreadPool* made = pool_create(n_threads);
    if (pools[n_threads].compare_exchange_strong(pool, made)) return made;
    pool_destroy(made);
    return pool;
}

}  // namespace rvllm
