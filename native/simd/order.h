// The order of tokens: larger value first, then lower index. Packed into one integer, so that sorting
// candidates is sorting integers. Static, like all that is compiled for several instruction sets.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace rvllm {

// Integers in the order of floats, smaller first; -0 equals 0.
static inline uint32_t value_order(float value) {
    value += 0.0f;
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}
static inline float ordered_value(uint32_t order) {
    const uint32_t bits = order ^ (order >> 31 ? 0x80000000u : 0xffffffffu);
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// Ascending keys are descending values, then ascending positions.
static inline uint64_t sort_key(float value, uint32_t position) {
    return static_cast<uint64_t>(~value_order(value)) << 32 | position;
}
static inline float key_value(uint64_t key) {
    return ordered_value(~static_cast<uint32_t>(key >> 32));
}

static inline void sort_keys(uint64_t* keys, int64_t n) {
    std::sort(keys, keys + n);
}

// The k-th smallest key, counted from 0.
static inline uint64_t nth_key(uint64_t* keys, int64_t n, int64_t k) {
    std::nth_element(keys, keys + k, keys + n);
    return keys[k];
}

}  // namespace rvllm
