// Conversions between float32 and the 16-bit formats, one element at a time, in portable C++.
//
// To 16 bits: round to nearest, ties to even; subnormals are kept; a NaN stays a (quiet) NaN.
#pragma once
#include <cstdint>
#include <cstring>

namespace rvllm {

inline uint32_t float_bits(float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    return u;
}

inline float bits_float(uint32_t u) {
    float x;
    std::memcpy(&x, &u, 4);
    return x;
}

inline float bf16_to_f32(uint16_t h) {
    return bits_float(static_cast<uint32_t>(h) << 16);
}

inline uint16_t f32_to_bf16(float x) {
    const uint32_t u = float_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40);
    return static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

inline float f16_to_f32(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
    const uint32_t rest = h & 0x7fff;
    if (rest >= 0x7c00) {  // infinity or NaN
        const uint32_t mantissa = (rest & 0x3ff) << 13;
        return bits_float(sign | 0x7f800000u | mantissa | (mantissa ? 0x400000u : 0));
    }
    if (rest < 0x400) {  // zero or subnormal: rest * 2^-24, exact
        return bits_float(sign | float_bits(static_cast<float>(rest) * 0x1p-24f));
    }
    return bits_float(sign | ((rest << 13) + ((127 - 15) << 23)));
}

inline uint16_t f32_to_f16(float x) {
    const uint32_t u = float_bits(x);
    const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000);
    const uint32_t a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return sign | 0x7e00 | static_cast<uint16_t>((a >> 13) & 0x3ff);
    if (a >= 0x477ff000u) return sign | 0x7c00;  // 65520 and above round to infinity
    if (a < 0x38800000u) {                       // below 2^-14: adding 0.5 rounds to a multiple of 2^-24
        return sign | static_cast<uint16_t>(float_bits(bits_float(a) + 0.5f) - 0x3f000000u);
    }
    const uint32_t rounded = a + 0xfff + ((a >> 13) & 1);
    return sign | static_cast<uint16_t>((rounded - ((127 - 15) << 23)) >> 13);
}

}  // namespace rvllm
