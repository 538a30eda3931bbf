// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a random number
// is a pure function of (seed, choice, token index, purpose), so no state is kept or passed on.
#pragma once
#include <cstdint>

#include "host_device.h"

namespace rvllm {

enum class Purpose : uint32_t { draw = 0 };

struct Philox4 {
    uint32_t v[4];
};

RVLLM_HOST_DEVICE inline Philox4 philox4x32(const Philox4& counter, uint64_t key) {
    uint32_t c0 = counter.v[0], c1 = counter.v[1], c2 = counter.v[2], c3 = counter.v[3];
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = static_cast<uint64_t>(0xD2511F53u) * c0,
                       b = static_cast<uint64_t>(0xCD9E8D57u) * c2;
        c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(b);
        c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(a);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// 64 random bits for one draw.
RVLLM_HOST_DEVICE inline uint64_t random_bits(uint64_t seed, uint32_t choice, uint32_t token_index,
                                              Purpose purpose) {
    const Philox4 r = philox4x32({{token_index, choice, static_cast<uint32_t>(purpose), 0}}, seed);
    return r.v[0] | static_cast<uint64_t>(r.v[1]) << 32;
}

// Uniform integer in [0, n), from 64 random bits.
RVLLM_HOST_DEVICE inline uint64_t scale_bits(uint64_t bits, uint64_t n) {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(bits) * n >> 64);
}

}  // namespace rvllm
