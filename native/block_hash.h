// The hash of a full block: of its parent's hash and its tokens.
//
// Two lanes of NH (UMAC, RFC 4418 section 5.2: sums of (word + key) * (word' + key') in 128 bits),
// each mixed down to 64 bits. The keys are random and secret: nobody can construct prompts that
// collide with another user's.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

namespace rvllm {

struct Hash128 {
    uint64_t lo = 0, hi = 0;
    bool operator==(const Hash128& o) const { return lo == o.lo && hi == o.hi; }
};

class BlockHasher {
public:
    explicit BlockHasher(int32_t block_size) : block_size_(block_size), n_pairs_((block_size + 3) / 4) {
        std::random_device device;
        keys_.resize(4 * static_cast<size_t>(n_pairs_ + 1) + 2);
        for (uint64_t& key : keys_) key = static_cast<uint64_t>(device()) << 32 | device();
    }

    // Parent of a first block. `extras`: everything besides tokens that the keys and values depend on.
    Hash128 root(uint64_t extras) const {
        return {mix(extras ^ keys_[keys_.size() - 2]), mix(extras ^ keys_[keys_.size() - 1])};
    }

    Hash128 next(const Hash128& parent, const int32_t* tokens) const {
        const uint64_t* key = keys_.data();
        Wide lo = 0, hi = 0;
        for (int32_t pair = 0; pair < n_pairs_; ++pair, key += 4) {
            uint64_t word[2] = {0, 0};
            const int32_t left = block_size_ - 4 * pair;
            if (left >= 4) {
                std::memcpy(word, tokens + 4 * pair, 16);
            } else {
                std::memcpy(word, tokens + 4 * pair, left * sizeof(int32_t));
            }
            lo += product(word[0], word[1], key);
            hi += product(word[0], word[1], key + 2);
        }
        return {fold(lo + product(parent.lo, parent.hi, key)),
                fold(hi + product(parent.lo, parent.hi, key + 2))};
    }

private:
    using Wide = unsigned __int128;

    static Wide product(uint64_t a, uint64_t b, const uint64_t* key) {
        return static_cast<Wide>(a + key[0]) * (b + key[1]);
    }
    static uint64_t mix(uint64_t x) {  // the finaliser of splitmix64
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        return x ^ (x >> 31);
    }
    static uint64_t fold(Wide x) {
        return mix(static_cast<uint64_t>(x) ^ mix(static_cast<uint64_t>(x >> 64)));
    }

    int32_t block_size_;
    int32_t n_pairs_;  // of 64-bit words, two tokens each
    std::vector<uint64_t> keys_;
};

}  // namespace rvllm
