// Runs the thread pool hard and exits nonzero at the first wrong answer. Built by tests/test_pool.py,
// once as it is and once with ThreadSanitizer.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "cpu/pool.h"

using namespace rvllm;

namespace {

void check(bool ok, const char* what, int n_threads) {
    if (ok) return;
    std::fprintf(stderr, "%s fails with %d threads\n", what, n_threads);
    std::_Exit(1);
}

void every_index_once(ThreadPool* pool) {
    for (int64_t n : {0, 1, 2, 3, 7, 64, 1000}) {
        std::vector<int> hits(n);
        std::atomic<bool> thread_ok{true};
        for (int rep = 0; rep < 200; ++rep) {
            parallel_for(pool, n, [&](int64_t i, int thread) {
                ++hits[i];  // no other thread may touch this index, nor run after the return
                if (thread < 0 || thread >= pool_threads(pool)) thread_ok = false;
            });
        }
        for (int h : hits) check(h == 200, "every index once", pool_threads(pool));
        check(thread_ok, "thread number", pool_threads(pool));
    }
}

// Two jobs at once would race on `scratch`, which ThreadSanitizer reports.
void callers_take_turns(ThreadPool* pool) {
    std::vector<int64_t> scratch(pool_threads(pool));
    const auto caller = [&] {
        for (int rep = 0; rep < 200; ++rep) {
            parallel_for(pool, 50, [&](int64_t i, int thread) { scratch[thread] += i; });
        }
    };
    std::thread a(caller), b(caller);
    a.join();
    b.join();
    int64_t sum = 0;
    for (int64_t s : scratch) sum += s;
    check(sum == 2 * 200 * (49 * 50 / 2), "two callers", pool_threads(pool));
}

void wakes_after_parking(ThreadPool* pool) {
    for (int rep = 0; rep < 20; ++rep) {
        usleep(500);
        std::atomic<int> n{0};
        parallel_for(pool, 16, [&](int64_t, int) { ++n; });
        check(n == 16, "job after an idle time", pool_threads(pool));
    }
}

int64_t cpu_us() {
    rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000 + r.ru_utime.tv_usec + r.ru_stime.tv_usec;
}

void idle_uses_no_cpu(ThreadPool* pool) {
    usleep(50000);
    const int64_t before = cpu_us();
    usleep(200000);
    check(cpu_us() - before < 20000, "no CPU when idle", pool_threads(pool));
}

void works_in_forked_child(ThreadPool* pool) {
    const pid_t child = fork();
    if (child == 0) {
        every_index_once(pool);
        pool_destroy(pool);
        _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    check(status == 0, "forked child", pool_threads(pool));
}

void scratch_grows(ThreadPool* pool) {
    std::memset(pool_scratch(pool, 100), 1, 100);
    void* big = pool_scratch(pool, 1 << 20);
    std::memset(big, 1, 1 << 20);
    check(reinterpret_cast<uintptr_t>(big) % 4096 == 0, "alignment of scratch", pool_threads(pool));
    check(pool_scratch(pool, 5000) == big, "scratch that is large enough", pool_threads(pool));
}

}  // namespace

int main(int argc, char** argv) {
    const bool forks = argc > 1 && std::strcmp(argv[1], "fork") == 0;
    for (int n_threads : {1, 2, 3, 8}) {
        ThreadPool* pool = pool_create(n_threads);
        check(pool_threads(pool) == n_threads, "size", n_threads);
        every_index_once(pool);
        callers_take_turns(pool);
        wakes_after_parking(pool);
        idle_uses_no_cpu(pool);
        scratch_grows(pool);
        if (forks) works_in_forked_child(pool);
        pool_destroy(pool);
    }
    ThreadPool* automatic = pool_create(0);
    check(pool_threads(automatic) == usable_cpus(), "automatic size", usable_cpus());
    pool_destroy(automatic);
    std::printf("%d\n", usable_cpus());
    return 0;
}
