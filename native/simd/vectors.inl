// Walking over a row in vectors of sixteen lanes, the last of which may be partial.
#pragma once
#include <cstring>

#include "kernels.h"

namespace rvllm {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

inline int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// The last, partial vector of a row; lanes beyond it hold `fill`.
inline F load_part(const float* p, int64_t n, float fill) {
    float v[kLanes];
    for (int l = 0; l < kLanes; ++l) v[l] = fill;
    std::memcpy(v, p, static_cast<size_t>(n) * sizeof(float));
    return load(v);
}
inline void store_part(float* p, int64_t n, F x) {
    float v[kLanes];
    store(v, x);
    std::memcpy(p, v, static_cast<size_t>(n) * sizeof(float));
}

inline F load_int_part(const int32_t* p, int64_t n) {
    int32_t v[kLanes] = {};
    std::memcpy(v, p, static_cast<size_t>(n) * sizeof v[0]);
    return load_int(v);
}

// f(vector, offset, lanes) over [begin, end).
template <class Fn>
inline void each_vector(const float* x, int64_t begin, int64_t end, float fill, const Fn& f) {
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) f(load(x + i), i, kLanes);
    if (i < end) f(load_part(x + i, end - i, fill), i, static_cast<int>(end - i));
}

// y = f(x), element by element.
template <class Fn>
inline void map(const float* x, float* y, int64_t n, const Fn& f) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)));
    if (i < n) store_part(y + i, n - i, f(load_part(x + i, n - i, 0)));
}

inline uint32_t lanes_below(int64_t n) {
    return n >= kLanes ? 0xffffu : (1u << n) - 1;
}

// Which of the blocks from `start`, the first of a group, have elements >= lo.
inline uint32_t blocks_reaching(const float* block_max, int64_t start, float lo) {
    return ge(load(block_max + start / kBlock), splat(lo));
}
inline bool group_reaches(const float* block_max, int64_t start, float lo) {
    return !block_max || blocks_reaching(block_max, start, lo) != 0;
}

}  // namespace
}  // namespace rvllm
