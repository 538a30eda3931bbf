"""The engine thread and its counters (engine_thread.h)."""
from libc.stdint cimport int64_t
from libcpp cimport bool as cbool
from libcpp.string cimport string


cdef extern from "engine_thread.h" namespace "rvllm" nogil:
    ctypedef void (*ThreadMain)(void*) noexcept

    cdef cppclass Gauge:
        int64_t get()
        void set(int64_t)
        void add(int64_t)

    cdef cppclass LogHistogram:
        void observe(int64_t)

        @staticmethod
        int64_t lower(int bucket)
        Gauge* counts
        Gauge sum

    cdef cppclass LastError:
        void set(const char* text)
        string get() except +

    cdef cppclass EngineCounters:
        EngineCounters()
        Gauge heartbeat_us
        Gauge idle
        Gauge alive
        Gauge steps
        Gauge failed_steps
        Gauge failed_in_row
        LastError last_error
        Gauge n_running
        Gauge n_waiting
        Gauge n_free_blocks
        Gauge n_preemptions
        Gauge prefix_queries
        Gauge prefix_hits
        Gauge host_hits
        Gauge swapped_out
        Gauge swapped_in
        Gauge prompt_tokens
        Gauge generation_tokens
        LogHistogram step_us
        LogHistogram host_us
        LogHistogram step_tokens

    cdef cppclass EngineThread:
        EngineThread()
        void start(ThreadMain main, void* arg) except +
        cbool joinable()
        void join()
        int64_t cpu_us()

    const int HISTOGRAM_BUCKETS "rvllm::LogHistogram::kBuckets"
