// The working memory of one thread that samples: arrays over one row, allocated once and kept.
#pragma once
#include <cstdint>
#include <cstdlib>

#include "kernels.h"

namespace rvllm {

struct Scratch {
    float* row = nullptr;            // [n] a copy of the logits that may be changed
    float* wide = nullptr;           // [n] a row of 16-bit values as float32
    float* val = nullptr;            // [n] candidates, in index order
    int32_t* idx = nullptr;          // [n]
    uint64_t* w = nullptr;           // [n] their weights
    uint64_t* keys = nullptr;        // [n] (value, index) packed for sorting
    float* block_max = nullptr;      // [n_groups * kLanes]
    float* order = nullptr;          // [n_groups * kLanes]
    uint64_t* group_mass = nullptr;  // [n_groups]
    int32_t* counts = nullptr;       // [n] by token id, all zero between uses
    const float* next =
        nullptr;  // the row this thread will most likely read next, as long as this one; or null
    int64_t capacity = 0;

    Scratch() = default;
    ~Scratch() { std::free(memory_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    static size_t padded(int64_t n) { return static_cast<size_t>((n + 2 * kPad + 15) / 16 * 16); }

    // Bytes of the memory behind rows of n elements.
    static size_t bytes_for(int64_t n) {
        const size_t lanes = static_cast<size_t>(n_groups(n)) * kLanes;
        return padded(n) * (4 + 4 + 4 + 4 + 4 + 8 + 8) + lanes * (4 + 4 + 8) + 64;
    }

    // Makes room for rows of n elements. False: out of memory.
    bool reserve(int64_t n) {
        if (n <= capacity) return true;
        const size_t padded = Scratch::padded(n), lanes = static_cast<size_t>(n_groups(n)) * kLanes;
        std::free(memory_);
        capacity = 0;
        memory_ = std::calloc(bytes_for(n), 1);  // fresh pages: what is never used is never touched
        if (!memory_) return false;
        char* p = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory_) + 63) / 64 * 64);
        const auto take = [&p](size_t size) {
            char* at = p;
            p += size;
            return at;
        };
        row = reinterpret_cast<float*>(take(4 * padded));
        wide = reinterpret_cast<float*>(take(4 * padded));
        val = reinterpret_cast<float*>(take(4 * padded));
        idx = reinterpret_cast<int32_t*>(take(4 * padded));
        counts = reinterpret_cast<int32_t*>(take(4 * padded));
        w = reinterpret_cast<uint64_t*>(take(8 * padded));
        keys = reinterpret_cast<uint64_t*>(take(8 * padded));
        block_max = reinterpret_cast<float*>(take(4 * lanes));
        order = reinterpret_cast<float*>(take(4 * lanes));
        group_mass = reinterpret_cast<uint64_t*>(take(8 * lanes));
        capacity = n;
        return true;
    }

private:
    void* memory_ = nullptr;
};

Scratch* thread_scratch();  // the calling thread's own

}  // namespace rvllm
