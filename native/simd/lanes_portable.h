// Sixteen virtual lanes in portable C++: what every instruction set must equal, bit for bit.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace rvllm {
namespace {

constexpr int kChains = 1;  // exponentials side by side

struct F {
    float v[kLanes];
};
struct Fixed {
    uint64_t v[kLanes];
};

#define EACH for (int l = 0; l < kLanes; ++l)
inline F load(const float* p) {
    F r;
    std::memcpy(r.v, p, sizeof r.v);
    return r;
}
inline void store(float* p, F a) {
    std::memcpy(p, a.v, sizeof a.v);
}
inline F splat(float x) {
    F r;
    EACH r.v[l] = x;
    return r;
}
inline F add(F a, F b) {
    EACH a.v[l] += b.v[l];
    return a;
}
inline F sub(F a, F b) {
    EACH a.v[l] -= b.v[l];
    return a;
}
inline F mul(F a, F b) {
    EACH a.v[l] *= b.v[l];
    return a;
}
inline F divide(F a, F b) {
    EACH a.v[l] /= b.v[l];
    return a;
}
inline F fma(F a, F b, F c) {
    EACH a.v[l] = std::fma(a.v[l], b.v[l], c.v[l]);
    return a;
}
inline F maximum(F a, F b) {  // b where a is not a number
    EACH a.v[l] = a.v[l] > b.v[l] ? a.v[l] : b.v[l];
    return a;
}
inline F minimum(F a, F b) {
    EACH a.v[l] = a.v[l] < b.v[l] ? a.v[l] : b.v[l];
    return a;
}
inline float largest(F a) {
    float r = a.v[0];
    EACH r = a.v[l] > r ? a.v[l] : r;
    return r;
}
inline F largest_each(const F (&a)[kLanes]) {  // lane i: the largest of a[i]
    F r;
    EACH r.v[l] = largest(a[l]);
    return r;
}
inline F max_bits(F a, F b) {  // of their bits as unsigned integers
    EACH {
        uint32_t x, y;
        std::memcpy(&x, &a.v[l], 4);
        std::memcpy(&y, &b.v[l], 4);
        x = x > y ? x : y;
        std::memcpy(&a.v[l], &x, 4);
    }
    return a;
}
inline uint32_t ge(F a, F b) {
    uint32_t m = 0;
    EACH m |= static_cast<uint32_t>(a.v[l] >= b.v[l]) << l;
    return m;
}
inline uint32_t gt(F a, F b) {
    uint32_t m = 0;
    EACH m |= static_cast<uint32_t>(a.v[l] > b.v[l]) << l;
    return m;
}
inline uint32_t eq(F a, F b) {
    uint32_t m = 0;
    EACH m |= static_cast<uint32_t>(a.v[l] == b.v[l]) << l;
    return m;
}
inline uint32_t unordered(F a, F b) {
    uint32_t m = 0;
    EACH m |= static_cast<uint32_t>(a.v[l] != a.v[l] || b.v[l] != b.v[l]) << l;
    return m;
}
inline F select(uint32_t m, F a, F b) {
    EACH a.v[l] = m >> l & 1 ? a.v[l] : b.v[l];
    return a;
}
// a * 2^k, where the low bits of the float `shifted` hold k.
inline F scale_by(F a, F shifted) {
    EACH {
        uint32_t x, k;
        std::memcpy(&x, &a.v[l], 4);
        std::memcpy(&k, &shifted.v[l], 4);
        x += k << 23;
        std::memcpy(&a.v[l], &x, 4);
    }
    return a;
}
inline F load_int(const int32_t* p) {
    F r;
    EACH r.v[l] = static_cast<float>(p[l]);
    return r;
}
inline void store_int(int32_t* p, F a) {  // towards zero
    EACH p[l] = static_cast<int32_t>(a.v[l]);
}
inline F gather(const float* p, const int32_t* index) {
    F r;
    EACH r.v[l] = p[index[l]];
    return r;
}
inline F gather_int(const int32_t* p, const int32_t* index) {
    F r;
    EACH r.v[l] = static_cast<float>(p[index[l]]);
    return r;
}
inline Fixed zero_fixed() {
    return Fixed{};
}
inline Fixed to_fixed(F a) {
    Fixed r;
    EACH {
        const double shifted = static_cast<double>(a.v[l]) + 6755399441055744.0;  // 1.5 * 2^52
        std::memcpy(&r.v[l], &shifted, 8);
        r.v[l] -= 0x4338000000000000u;
    }
    return r;
}
inline Fixed add_fixed(Fixed a, Fixed b) {
    EACH a.v[l] += b.v[l];
    return a;
}
inline uint64_t sum_fixed(Fixed a) {
    uint64_t s = 0;
    EACH s += a.v[l];
    return s;
}
inline void store_fixed(uint64_t* p, Fixed a) {
    std::memcpy(p, a.v, sizeof a.v);
}
#undef EACH

inline int64_t compress(float* val, int32_t* idx, const float* x, F, int32_t first, uint32_t m) {
    int64_t k = 0;
    for (; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        val[k] = x[l];
        idx[k++] = first + l;
    }
    return k;
}

}  // namespace
}  // namespace rvllm
