// The clock of the engine and of what measures it: CLOCK_MONOTONIC, that of Python's time.monotonic().
#pragma once
#include <time.h>

#include <cstdint>

namespace rvllm {

inline int64_t monotonic_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<int64_t>(t.tv_sec) * 1000000000 + t.tv_nsec;
}

inline int64_t monotonic_us() {
    return monotonic_ns() / 1000;
}

}  // namespace rvllm
