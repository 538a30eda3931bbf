// The blocks of one tier that no sequence holds: empty ones, and cached ones in the order of their use.
//
// Both tiers number their blocks in one array. Empty blocks are a stack, cached ones a list linked
// through the array, whose head is a spare entry of it. Nothing is allocated after init().
#pragma once
#include <cstdint>
#include <memory>

namespace rvllm {

struct Block {
    int32_t n_refs = 0;  // tables that hold it
    int32_t cached = 0;  // 1: its content is in the prefix cache
    int32_t prev = -1;   // neighbours among the unreferenced cached blocks of its tier
    int32_t next = -1;
};

class BlockPool {
public:
    // Blocks first .. first + n of `blocks`, all empty; blocks[head] is the list's.
    void init(Block* blocks, int32_t first, int32_t n, int32_t head) {
        blocks_ = blocks;
        head_ = head;
        blocks_[head].prev = blocks_[head].next = head;
        stack_ = std::make_unique<int32_t[]>(n);
        for (int32_t i = n; i-- > 0;) stack_[n_empty_++] = first + i;
    }

    int32_t n_empty() const { return n_empty_; }
    int32_t n_free() const { return n_empty_ + n_cached_; }

    int32_t take_empty() { return stack_[--n_empty_]; }
    // The least recently used cached block.
    int32_t take_oldest() {
        const int32_t block = blocks_[head_].next;
        take(block);
        return block;
    }
    // A cached block of the list.
    void take(int32_t block) {
        const Block& b = blocks_[block];
        blocks_[b.prev].next = b.next;
        blocks_[b.next].prev = b.prev;
        --n_cached_;
    }
    // Puts an unreferenced block where it belongs; a cached one is the most recently used then.
    void put(int32_t block) {
        if (!blocks_[block].cached) {
            stack_[n_empty_++] = block;
            return;
        }
        const int32_t last = blocks_[head_].prev;
        blocks_[block].prev = last;
        blocks_[block].next = head_;
        blocks_[last].next = blocks_[head_].prev = block;
        ++n_cached_;
    }

    // nullptr, or what is wrong.
    const char* check() const {
        for (int32_t i = 0; i < n_empty_; ++i) {
            const Block& b = blocks_[stack_[i]];
            if (b.n_refs || b.cached) return "an empty block is referenced or cached";
        }
        int32_t block = blocks_[head_].next;
        for (int32_t i = 0; i < n_cached_; ++i) {
            if (block == head_) return "the list of cached blocks is shorter than its count";
            const Block& b = blocks_[block];
            if (b.n_refs || !b.cached) return "a block in the list of cached blocks is referenced or empty";
            if (blocks_[b.next].prev != block) return "the list of cached blocks is not linked both ways";
            block = b.next;
        }
        return block == head_ ? nullptr : "the list of cached blocks is longer than its count";
    }

private:
    Block* blocks_ = nullptr;
    int32_t head_ = 0;
    int32_t n_empty_ = 0;
    int32_t n_cached_ = 0;
    std::unique_ptr<int32_t[]> stack_;
};

}  // namespace rvllm
