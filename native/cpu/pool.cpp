// ThreadPool: workers that claim index ranges of the current job from one counter.
//
// A job is published by storing n to `remaining`. Whoever lowers it from r > 0 owns indices
// [n - r, n - r + taken), whichever job that is by now: only then fn, ctx and n are read, and they
// stay put until `pending`, lowered after the work, reaches zero. So a late worker needs no
// handshake and nobody waits for one that sleeps.
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "park.h"

namespace rvllm {

namespace {

constexpr int kSpinUs = 50;  // how long a worker waits for the next op before it parks

inline void cpu_pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#endif
}

// What threads share. Replaced as a whole in a forked child, where its workers do not exist and its
// locks may be held by threads that do not either.
struct Shared {
    alignas(64) std::atomic<int64_t> remaining{0};  // indices nobody claimed yet; <= 0: no work
    alignas(64) std::atomic<int64_t> pending{0};    // indices not finished yet
    alignas(64) PoolFn fn = nullptr;                // the job: written while pending == 0
    void* ctx = nullptr;
    int64_t n = 0;
    alignas(64) std::atomic<int> n_parked{0};
    std::atomic<bool> stop{false};
    std::mutex park_mutex;
    std::condition_variable parked;
    alignas(64) std::mutex turn;  // held by the caller whose job runs
    std::vector<pthread_t> workers;
};

struct WorkerStart {
    Shared* shared;
    int thread;
    int n_threads;
    bool yields;
};

// Runs parts of the current job until all are claimed. Parts shrink as work runs out.
void work(Shared* s, int thread, int n_threads) {
    int64_t n_done = 0;
    while (true) {
        const int64_t seen = s->remaining.load(std::memory_order_relaxed);
        if (seen <= 0) break;
        const int64_t part = std::max<int64_t>(1, seen / (4 * n_threads));
        const int64_t left = s->remaining.fetch_sub(part, std::memory_order_acq_rel);
        if (left <= 0) break;
        const int64_t begin = s->n - left;
        const int64_t end = std::min(begin + part, s->n);
        for (int64_t i = begin; i < end; ++i) s->fn(s->ctx, i, thread);
        n_done += end - begin;
    }
    if (n_done > 0) s->pending.fetch_sub(n_done, std::memory_order_acq_rel);
}

// Waits for `ready` for about `us`; false: gave up. With more threads than CPUs it yields instead of pausing.
template <class Ready>
bool spin(int us, bool yields, const Ready& ready) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(us);
    do {
        for (int i = 0; i < 16; ++i) {
            if (ready()) return true;
            cpu_pause();
        }
        if (yields) sched_yield();
    } while (std::chrono::steady_clock::now() < until);
    return false;
}

void* worker_main(void* arg) {
    const WorkerStart start = *static_cast<WorkerStart*>(arg);
    delete static_cast<WorkerStart*>(arg);
    Shared* s = start.shared;
    const auto ready = [s] {
        return s->remaining.load(std::memory_order_relaxed) > 0 || s->stop.load(std::memory_order_relaxed);
    };
    while (!s->stop.load(std::memory_order_acquire)) {
        work(s, start.thread, start.n_threads);
        if (spin(kSpinUs, start.yields, ready)) continue;
        std::unique_lock<std::mutex> lock(s->park_mutex);
        s->n_parked.fetch_add(1);  // before the last look at `remaining`: see wake()
        if (s->remaining.load() <= 0 && !s->stop.load()) park(s->parked, lock);
        s->n_parked.fetch_sub(1);
    }
    return nullptr;
}

// After publishing: either this sees the parked worker, or that worker saw the job.
void wake(Shared* s, int64_t n_wanted) {
    const int n_parked = s->n_parked.load();
    if (n_parked == 0) return;
    std::lock_guard<std::mutex> lock(s->park_mutex);
    if (n_wanted >= n_parked) {
        s->parked.notify_all();
    } else {
        for (int64_t i = 0; i < n_wanted; ++i) s->parked.notify_one();
    }
}

}  // namespace

struct ThreadPool {
    int n_threads = 1;
    bool yields = false;  // more threads than CPUs
    Shared* shared = nullptr;
    void* scratch = nullptr;
    size_t scratch_bytes = 0;
};

namespace {

// All pools, for the child of a fork. Never destroyed: workers may outlive static destructors.
struct Registry {
    std::mutex mutex;
    std::vector<ThreadPool*> pools;
};

Registry& registry() {
    static Registry* r = [] {
        auto* made = new Registry;
        pthread_atfork([] { registry().mutex.lock(); }, [] { registry().mutex.unlock(); },
                       [] {
                           // The old state is leaked: its locks and threads cannot be destroyed here.
                           for (ThreadPool* p : registry().pools) p->shared = new Shared;
                           registry().mutex.unlock();
                       });
        return made;
    }();
    return *r;
}

void start_workers(ThreadPool* pool) {
    Shared* s = pool->shared;
    s->workers.reserve(pool->n_threads - 1);
    // Signals are for the threads of the application.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int t = 1; t < pool->n_threads; ++t) {
        auto* start = new WorkerStart{s, t, pool->n_threads, pool->yields};
        pthread_t id;
        if (pthread_create(&id, nullptr, worker_main, start) != 0) {
            delete start;  // no more threads to be had: those that run do all the work
            break;
        }
#if defined(__linux__)
        pthread_setname_np(id, "rvllm-pool");
#endif
        s->workers.push_back(id);
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

ThreadPool* pool_create(int n_threads) {
    auto* pool = new ThreadPool;
    const int n_cpus = usable_cpus();
    pool->n_threads = n_threads > 0 ? n_threads : n_cpus;
    pool->yields = pool->n_threads > n_cpus;
    pool->shared = new Shared;
    Registry& r = registry();
    std::lock_guard<std::mutex> lock(r.mutex);
    r.pools.push_back(pool);
    return pool;
}

void pool_destroy(ThreadPool* pool) {
    if (pool == nullptr) return;
    {
        Registry& r = registry();
        std::lock_guard<std::mutex> lock(r.mutex);
        r.pools.erase(std::find(r.pools.begin(), r.pools.end(), pool));
    }
    Shared* s = pool->shared;
    s->stop.store(true);
    {
        std::lock_guard<std::mutex> lock(s->park_mutex);
        s->parked.notify_all();
    }
    for (pthread_t id : s->workers) pthread_join(id, nullptr);
    delete s;
    std::free(pool->scratch);
    delete pool;
}

int pool_threads(const ThreadPool* pool) {
    return pool->n_threads;
}

void pool_run(ThreadPool* pool, int64_t n, PoolFn fn, void* ctx) {
    if (n <= 0) return;
    Shared* s = pool->shared;
    std::lock_guard<std::mutex> turn(s->turn);
    if (n == 1 || pool->n_threads == 1) {
        for (int64_t i = 0; i < n; ++i) fn(ctx, i, 0);
        return;
    }
    if (s->workers.empty()) start_workers(pool);
    s->fn = fn;
    s->ctx = ctx;
    s->n = n;
    s->pending.store(n, std::memory_order_relaxed);
    s->remaining.store(n);  // publishes all of the above
    wake(s, n - 1);
    work(s, 0, pool->n_threads);
    const auto done = [s] { return s->pending.load(std::memory_order_acquire) == 0; };
    while (!spin(kSpinUs, pool->yields, done)) sched_yield();
}

void* pool_scratch(ThreadPool* pool, size_t bytes) {
    if (bytes > pool->scratch_bytes) {
        std::free(pool->scratch);
        const size_t rounded = (bytes + 4095) / 4096 * 4096;
        pool->scratch = std::aligned_alloc(4096, rounded);
        if (pool->scratch == nullptr) throw std::bad_alloc();
        pool->scratch_bytes = rounded;
    }
    return pool->scratch;
}

}  // namespace rvllm
