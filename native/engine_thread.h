// What the engine thread needs from the operating system: the thread itself, and counters that other
// threads may read at any time.
#pragma once
#include <pthread.h>
#include <time.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace rvllm {

using ThreadMain = void (*)(void*);

// A native thread that runs one function. It is not a Python thread and never becomes one.
class EngineThread {
public:
    void start(ThreadMain main, void* arg) {
        thread_ = std::thread([main, arg] {
            pthread_setname_np(pthread_self(), "rvllm-engine");
            main(arg);
        });
    }
    bool joinable() const { return thread_.joinable(); }
    void join() { thread_.join(); }
    // CPU time the thread has used, in microseconds.
    int64_t cpu_us() {
        clockid_t clock;
        timespec t;
        if (!thread_.joinable() || pthread_getcpuclockid(thread_.native_handle(), &clock) ||
            clock_gettime(clock, &t))
            return 0;
        return static_cast<int64_t>(t.tv_sec) * 1000000 + t.tv_nsec / 1000;
    }

private:
    std::thread thread_;
};

// A counter or gauge with one writer, the engine thread; read by others without order.
class Gauge {
public:
    int64_t get() const { return value_.load(std::memory_order_relaxed); }
    void set(int64_t v) { value_.store(v, std::memory_order_relaxed); }
    void add(int64_t v) { set(get() + v); }

private:
    std::atomic<int64_t> value_{0};
};

// Counts of values in buckets that grow by 1/32 of a power of two: about 3% wide, so that two runs
// can be compared by their percentiles. Values below 32 have a bucket each.
class LogHistogram {
public:
    static constexpr int kSub = 32;      // buckets per power of two
    static constexpr int kOctaves = 28;  // powers of two from kSub on
    static constexpr int kBuckets = kSub * (kOctaves + 1);
    void observe(int64_t v) {
        counts[bucket_of(v)].add(1);
        sum.add(v);
    }
    static int bucket_of(int64_t v) {
        if (v < kSub) return v < 0 ? 0 : static_cast<int>(v);
        const int octave = 63 - __builtin_clzll(static_cast<unsigned long long>(v)) - 5;  // 2^5 == kSub
        if (octave >= kOctaves) return kBuckets - 1;
        return kSub * (octave + 1) + static_cast<int>((v >> octave) - kSub);
    }
    // Smallest value of a bucket.
    static int64_t lower(int bucket) {
        const int octave = bucket / kSub - 1;
        return octave < 0 ? bucket : static_cast<int64_t>(bucket % kSub + kSub) << octave;
    }
    Gauge counts[kBuckets];
    Gauge sum;
};

// The sentence of the step that failed last; written by the engine thread, read by others.
class LastError {
public:
    void set(const char* text) {
        const std::lock_guard<std::mutex> lock(mutex_);
        text_ = text;
    }
    std::string get() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return text_;
    }

private:
    std::mutex mutex_;
    std::string text_;
};

// What the engine thread tells about itself.
struct EngineCounters {
    Gauge heartbeat_us;  // when the loop last turned
    Gauge idle;          // 1 while it sleeps because there is nothing to do
    Gauge alive;         // 1 from start to end of the thread
    Gauge steps;
    Gauge failed_steps;
    Gauge failed_in_row;  // of these, since a step last succeeded
    LastError last_error;
    Gauge n_running;
    Gauge n_waiting;
    Gauge n_free_blocks;
    Gauge n_preemptions;
    Gauge prefix_queries;  // prompt tokens looked up in the prefix cache
    Gauge prefix_hits;     // of these, found
    Gauge host_hits;       // of those found, in the second tier
    Gauge swapped_out;     // blocks that moved to the second tier
    Gauge swapped_in;      // and back
    Gauge prompt_tokens;   // computed or found
    Gauge generation_tokens;
    LogHistogram step_us;      // wall time of a step, schedule to publish
    LogHistogram host_us;      // of that, outside the forward pass and the sampler
    LogHistogram step_tokens;  // tokens of a step, prompt and output
};

}  // namespace rvllm
