// gather_8(): eight scattered floats in one register, by scalar loads and inserts. On Zen 5 that takes two
// thirds of the time of the gather instruction, which on many Intel parts is slow since its security fix.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace rvllm {
namespace {

inline __m128 gather_4(const float* p, const int32_t* index) {
    uint64_t first, second;  // two indices a load: loads are the limit
    std::memcpy(&first, index, sizeof first);
    std::memcpy(&second, index + 2, sizeof second);
    __m128 x = _mm_load_ss(p + static_cast<uint32_t>(first));
    x = _mm_insert_ps(x, _mm_load_ss(p + (first >> 32)), 0x10);
    x = _mm_insert_ps(x, _mm_load_ss(p + static_cast<uint32_t>(second)), 0x20);
    return _mm_insert_ps(x, _mm_load_ss(p + (second >> 32)), 0x30);
}
inline __m256 gather_8(const float* p, const int32_t* index) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(gather_4(p, index)), gather_4(p, index + 4), 1);
}

}  // namespace
}  // namespace rvllm
