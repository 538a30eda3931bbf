// The chunks of a CTA of linear_tile_kernel on their way to shared memory.
//
// From sm_80 on, cp.async keeps as many on their way as there are slots but one. Before, one is on its way
// in registers and two slots take turns. A slot is a tile of weights, then Tokens rows of 128 bytes, both
// with their 16-byte pieces permuted by XOR with row % 8.
#pragma once
#include "device/copy.cuh"
#include "device/pdl.cuh"
#include "gemm/tile_schedule.cuh"

namespace rvllm::cuda {

constexpr int kTileThreads = 256;
constexpr int kTileSteps = kChunk / 16;  // products along K per chunk

// Address of the 16-byte piece of a row.
__device__ __forceinline__ uint32_t piece_at(uint32_t tile, int row, int piece) {
    return tile + row * 128 + ((piece ^ (row & 7)) << 4);
}

template <int Tokens>
class TileRing {
public:
    static constexpr int kSlotBytes = kTileBytes + Tokens * 128;

    __device__ __forceinline__ TileRing(const LinearParams& p, const TilePlan& plan, uint32_t slots)
        : p_(p), walk_(plan, Tokens), slots_(slots), free_(slots), used_(slots) {
        end_ = slots + p.n_stages * kSlotBytes;
        deep_ = p.n_stages == kTileDeepStages;
        const int row = threadIdx.x / 8, piece = threadIdx.x % 8;
        token_target_ = kTileBytes + piece_at(0, row, piece);
        token_step_ = (int32_t)p.x_stride * kRowStep * 2;
        open();
    }

    // Asks L2 for the first weights, which no predecessor writes.
    __device__ __forceinline__ void prefetch() const {
#if __CUDA_ARCH__ >= 900
        if (threadIdx.x < min(left_, p_.n_stages))
            asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(weight_ - threadIdx.x * 16 +
                                                                            threadIdx.x * (size_t)kTileBytes),
                         "r"(kTileBytes));
#endif
    }

    // Sends the first chunks on their way and waits for the first of all.
    __device__ __forceinline__ void fill() {
#if __CUDA_ARCH__ >= 800
        for (int i = 1; i < p_.n_stages; ++i)
#pragma unroll
            for (int step = 0; step < kTileSteps - 1; ++step) refill(step);
#else
        load();
        store();
        load();
#endif
        arrive();
    }

    // The slot that has arrived.
    __device__ __forceinline__ uint32_t slot() const { return used_; }

    // Waits for the next slot; everybody has read the one before it.
    __device__ __forceinline__ void next() {
        used_ = after(used_);
        arrive();
    }

    // Sends a chunk on its way into the slot that was read last, in parts: for `step` 0 ... kTileSteps - 2.
    __device__ __forceinline__ void refill(int step) {
#if __CUDA_ARCH__ >= 800
        if (left_ > 0) {
            const auto copy = [&](int, uint32_t target, const void* src, bool valid) {
                copy16_async(free_ + target, src, valid);
            };
            constexpr int kParts = kTileSteps - 1;
            each_weight(step * kWeightCopies / kParts, (step + 1) * kWeightCopies / kParts, copy);
            each_token(step * kTokenCopies / kParts, (step + 1) * kTokenCopies / kParts, copy);
        }
        if (step < kTileSteps - 2) return;
        copy_commit();
        if (left_ > 0) advance();
#else
        if (step > 0) return;
        store();
        load();
#endif
    }

private:
    static constexpr int kWeightCopies = kTileBytes / 16 / kTileThreads;
    static constexpr int kTokenCopies = (Tokens * 8 + kTileThreads - 1) / kTileThreads;
    static constexpr int kStages = tile_stages(Tokens);
    static constexpr int kRowStep = kTileThreads / 8;  // rows between the copies of a thread

    __device__ __forceinline__ void arrive() const {
        if (Tokens <= 32 && deep_) {
            copy_wait<kTileDeepStages - 2>();
        } else {
            copy_wait<kStages - 2>();
        }
        __syncthreads();
    }

    __device__ __forceinline__ uint32_t after(uint32_t slot) const {
        return slot + kSlotBytes == end_ ? slots_ : slot + kSlotBytes;
    }

    __device__ __forceinline__ void open() {
        TileSegment s;
        left_ = 0;
        if (!walk_.next(s)) return;
        left_ = s.end - s.begin;
        const int row = threadIdx.x / 8, column = s.begin * kChunk + threadIdx.x % 8 * 8;
        columns_left_ = p_.k - column;
        tokens_left_ = p_.m - s.token0 - row;
        token_ = static_cast<const uint8_t*>(p_.x) + ((s.token0 + row) * p_.x_stride + column) * 2;
        weight_ = p_.weight + ((size_t)s.block * k_chunks(p_.k) + s.begin) * kTileBytes + threadIdx.x * 16;
    }

    __device__ __forceinline__ void advance() {
        free_ = after(free_);
        columns_left_ -= kChunk;
        token_ += kChunk * 2;
        weight_ += kTileBytes;
        if (--left_ == 0) open();
    }

    // Calls copy(i, target in the slot, source, whether it is there) for pieces [first, last) of this thread.
    template <typename Copy>
    __device__ __forceinline__ void each_weight(int first, int last, const Copy& copy) const {
#pragma unroll
        for (int i = 0; i < kWeightCopies; ++i)
            if (i >= first && i < last)
                copy(i, threadIdx.x * 16 + i * kRowStep * 128, weight_ + i * kRowStep * 128, true);
    }
    template <typename Copy>
    __device__ __forceinline__ void each_token(int first, int last, const Copy& copy) const {
        if (Tokens * 8 < kTileThreads && threadIdx.x >= Tokens * 8) return;
#pragma unroll
        for (int i = 0; i < kTokenCopies; ++i) {
            if (i < first || i >= last) continue;
            const bool valid = i * kRowStep < tokens_left_ && columns_left_ > 0;
            copy(i, token_target_ + i * kRowStep * 128, token_ + i * (int64_t)token_step_, valid);
        }
    }

#if __CUDA_ARCH__ < 800
    __device__ __forceinline__ void load() {
        held_ = left_ > 0;
        if (!held_) return;
        const auto to = [](uint4* v) {
            return [v](int i, uint32_t, const void* src, bool valid) {
                v[i] = valid ? __ldcg(static_cast<const uint4*>(src)) : make_uint4(0, 0, 0, 0);
            };
        };
        each_weight(0, kWeightCopies, to(weights_));
        each_token(0, kTokenCopies, to(tokens_));
        target_ = free_;
        advance();
    }

    __device__ __forceinline__ void store() {
        if (!held_) return;
        const auto from = [this](const uint4* v) {
            return [this, v](int i, uint32_t target, const void*, bool) {
                asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(target_ + target), "r"(v[i].x),
                             "r"(v[i].y), "r"(v[i].z), "r"(v[i].w)
                             : "memory");
            };
        };
        each_weight(0, kWeightCopies, from(weights_));
        each_token(0, kTokenCopies, from(tokens_));
    }

    uint4 weights_[kWeightCopies], tokens_[kTokenCopies];  // on their way
    uint32_t target_;                                      // to this slot
    bool held_;
#endif

    const LinearParams& p_;
    TileSchedule walk_;
    uint32_t slots_, end_, free_, used_;  // slots: the first, past the last, to be filled, to be read
    bool deep_;
    uint32_t token_target_;  // of this thread's first token, in a slot
    int32_t token_step_;     // bytes between its tokens
    // Where the next chunk comes from.
    const uint8_t *weight_, *token_;
    int left_, columns_left_, tokens_left_;
};

}  // namespace rvllm::cuda
