// The order of tokens: larger value first, then lower index. Packed into one integer, so that sorting
// candidates is sorting integers.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>

namespace rvllm {

// Ascending keys are descending values, then ascending positions. -0 equals 0.
inline uint64_t sort_key(float value, uint32_t position) {
    value += 0.0f;
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits ^= bits >> 31 ? 0u : 0x7fffffffu;
    return static_cast<uint64_t>(bits) << 32 | position;
}
inline float key_value(uint64_t key) {
    uint32_t bits = static_cast<uint32_t>(key >> 32);
    bits ^= bits >> 31 ? 0u : 0x7fffffffu;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline void sort_keys(uint64_t* keys, int64_t n) {
    std::sort(keys, keys + n);
}

// The k-th smallest key, counted from 0.
inline uint64_t nth_key(uint64_t* keys, int64_t n, int64_t k) {
    std::nth_element(keys, keys + k, keys + n);
    return keys[k];
}

// The k-th largest, counted from 0; reorders v.
inline float nth_largest(float* v, int64_t n, int64_t k) {
    std::nth_element(v, v + k, v + n, std::greater<float>());
    return v[k];
}

}  // namespace rvllm
