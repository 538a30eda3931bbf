// Which block holds which tokens: content -> block, for full blocks whose keys and values are computed.
// A content has one block, in whichever tier.
//
// Open addressing with linear probing and backward-shift deletion, sized once and at most half full.
// Each block keeps its tokens (block_size * 4 bytes), compared on every hit: a wrong hit would need
// two prefixes with equal last blocks whose 128-bit secret-keyed hashes collide.
#pragma once
#include <algorithm>

#include "block_hash.h"

namespace rvllm {

class PrefixCache {
public:
    static constexpr int32_t kNone = -1;

    PrefixCache(int32_t n_blocks, int32_t block_size)
        : hasher_(block_size),
          block_size_(block_size),
          hashes_(n_blocks),
          tokens_(static_cast<size_t>(n_blocks) * block_size) {
        size_t n = 8;
        while (n < 2 * static_cast<size_t>(n_blocks)) n *= 2;
        table_.resize(n);
        mask_ = n - 1;
    }

    int32_t size() const { return size_; }

    // Leading blocks of tokens[0 .. n_blocks * block_size) that are in the cache, written to `found`.
    int32_t lookup(uint64_t extras, const int32_t* tokens, int32_t n_blocks, int32_t* found) const {
        // Hashes run ahead of look-ups, so that the table and the blocks are in the CPU's cache in time.
        constexpr int32_t kAhead = 8;
        Hash128 ring[2 * kAhead];
        Hash128 hash = hasher_.root(extras);
        for (int32_t i = 0; i < n_blocks + 2 * kAhead; ++i) {
            if (i < n_blocks) {
                hash = hasher_.next(hash, tokens + static_cast<size_t>(i) * block_size_);
            }
            const int32_t b = i - 2 * kAhead;  // before ring[i] replaces its hash
            if (b >= 0 && b < n_blocks) {
                found[b] = find(ring[b % (2 * kAhead)], tokens + static_cast<size_t>(b) * block_size_);
                if (found[b] == kNone) return b;
            }
            if (i < n_blocks) {
                ring[i % (2 * kAhead)] = hash;
                __builtin_prefetch(&table_[home(hash)]);
            }
            const int32_t near = i - kAhead;
            if (near >= 0 && near < n_blocks) {
                const int32_t block = table_[home(ring[near % (2 * kAhead)])].block;
                if (block != kNone) {
                    __builtin_prefetch(&hashes_[block]);
                    __builtin_prefetch(&tokens_[static_cast<size_t>(block) * block_size_]);
                }
            }
        }
        return n_blocks;
    }

    // The block that holds `tokens` behind block `parent` (kNone: as the first); kNone: none does.
    int32_t follow(int32_t parent, uint64_t extras, const int32_t* tokens) const {
        return find(next_hash(parent, extras, tokens), tokens);
    }

    // Gives `block`, which is not in the cache, the hash of its tokens behind block `parent` (kNone: it
    // is the first of its sequence). The blocks behind it need it, and so does enter(): hash several
    // before entering them, so that the table is in the CPU's cache in time.
    void hash(int32_t block, int32_t parent, uint64_t extras, const int32_t* tokens) {
        hashes_[block] = next_hash(parent, extras, tokens);
        __builtin_prefetch(&table_[home(hashes_[block])]);
        __builtin_prefetch(&tokens_[static_cast<size_t>(block) * block_size_], 1);
    }

    // Enters `block` with the tokens that it was hashed with, unless another block holds the same.
    // Returns the block that holds them now.
    int32_t enter(int32_t block, const int32_t* tokens) {
        const Hash128 hash = hashes_[block];
        const int32_t held = find(hash, tokens);
        if (held != kNone) return held;
        std::copy(tokens, tokens + block_size_, &tokens_[static_cast<size_t>(block) * block_size_]);
        size_t i = home(hash);
        while (table_[i].block != kNone) i = (i + 1) & mask_;
        table_[i] = {tag(hash), block};
        ++size_;
        return block;
    }

    // The content of `from`, which is in the cache, is in `to` from now on.
    void move(int32_t from, int32_t to) {
        table_[entry_of(from)].block = to;
        hashes_[to] = hashes_[from];
        const int32_t* tokens = &tokens_[static_cast<size_t>(from) * block_size_];
        std::copy(tokens, tokens + block_size_, &tokens_[static_cast<size_t>(to) * block_size_]);
    }

    void remove(int32_t block) {
        size_t hole = entry_of(block);
        // Close the gap: move back every later entry of the run that may live at the hole.
        for (size_t i = (hole + 1) & mask_; table_[i].block != kNone; i = (i + 1) & mask_) {
            const size_t from_home = (i - (table_[i].tag & mask_)) & mask_;
            if (from_home >= ((i - hole) & mask_)) {
                table_[hole] = table_[i];
                hole = i;
            }
        }
        table_[hole] = Entry{};
        --size_;
    }

    // Whether `block` is found under its own content.
    bool holds(int32_t block) const {
        return find(hashes_[block], &tokens_[static_cast<size_t>(block) * block_size_]) == block;
    }

    // Hash n_blocks blocks in a row, for the benchmark. Returns a value that depends on all of them.
    uint64_t hash_all(uint64_t extras, const int32_t* tokens, int32_t n_blocks) const {
        Hash128 hash = hasher_.root(extras);
        for (int32_t i = 0; i < n_blocks; ++i)
            hash = hasher_.next(hash, tokens + static_cast<size_t>(i) * block_size_);
        return hash.lo ^ hash.hi;
    }

private:
    struct Entry {
        uint32_t tag = 0;
        int32_t block = kNone;
    };

    static uint32_t tag(const Hash128& h) { return static_cast<uint32_t>(h.lo); }
    size_t home(const Hash128& h) const { return tag(h) & mask_; }
    Hash128 next_hash(int32_t parent, uint64_t extras, const int32_t* tokens) const {
        return hasher_.next(parent == kNone ? hasher_.root(extras) : hashes_[parent], tokens);
    }

    size_t entry_of(int32_t block) const {
        size_t i = home(hashes_[block]);
        while (table_[i].block != block) i = (i + 1) & mask_;
        return i;
    }

    int32_t find(const Hash128& h, const int32_t* tokens) const {
        for (size_t i = home(h); table_[i].block != kNone; i = (i + 1) & mask_) {
            if (table_[i].tag != tag(h)) continue;
            const int32_t b = table_[i].block;
            if (hashes_[b] == h &&
                std::equal(tokens, tokens + block_size_, &tokens_[static_cast<size_t>(b) * block_size_])) {
                return b;
            }
        }
        return kNone;
    }

    BlockHasher hasher_;
    int32_t block_size_;
    std::vector<Hash128> hashes_;
    std::vector<int32_t> tokens_;  // [n_blocks, block_size]
    std::vector<Entry> table_;
    size_t mask_ = 0;
    int32_t size_ = 0;
};

}  // namespace rvllm
