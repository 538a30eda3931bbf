// The thread pool of CPU ops and of CPU sampling: parallel_for over a small index range.
//
// Workers spin briefly between jobs, then park, so that a burst of ops pays no wake-ups and an
// idle engine no CPU. The caller takes part in the work. Threads start at the first job, and again
// in a forked child. One job at a time: a second caller on another thread waits its turn.
#pragma once
#include <cstddef>
#include <cstdint>

namespace rvllm {

struct ThreadPool;

// n_threads <= 0: as many as the affinity mask and the cgroup quota allow.
ThreadPool* pool_create(int n_threads);
void pool_destroy(ThreadPool*);
int pool_threads(const ThreadPool*);  // the caller included

// Calls fn(ctx, i, thread) for every i in [0, n), in any order, from up to pool_threads() threads;
// `thread` is in [0, pool_threads()). Returns when all are done. n == 1 runs inline. fn must not call
// pool_run() on the same pool.
using PoolFn = void (*)(void* ctx, int64_t i, int thread);
void pool_run(ThreadPool*, int64_t n, PoolFn fn, void* ctx);

// The same for a callable; the lambda lives on the caller's stack.
template <class F>
void parallel_for(ThreadPool* pool, int64_t n, const F& f) {
    pool_run(
        pool, n, [](void* ctx, int64_t i, int thread) { (*static_cast<const F*>(ctx))(i, thread); },
        const_cast<F*>(&f));
}

// Memory of the pool for the op that runs on it: 4096-byte aligned, at least `bytes`, grow-only, shared
// by all its threads. Growing loses the contents; the next op overwrites them.
void* pool_scratch(ThreadPool*, size_t bytes);

// Threads that this process may use: affinity mask and cgroup v1/v2 CPU quota.
int usable_cpus();

}  // namespace rvllm
