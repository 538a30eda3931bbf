// Block copies of a step: within the cache on the stream of its ops, between the tiers on two of their own.
//
// A block that goes out is packed into a ring of staging blocks, at the speed of device memory, and leaves it
// by DMA while ops run; one that comes back arrives in the ring and is unpacked. A list of copies is cut into
// groups within which packing, reading the second tier, writing it and unpacking, one after the other, mean
// what the list means in its order.
#pragma once
#include <vector>

#include "context.h"

namespace rvllm::cuda {

class BlockMoves {
public:
    BlockMoves() = default;
    BlockMoves(const BlockMoves&) = delete;
    BlockMoves& operator=(const BlockMoves&) = delete;
    ~BlockMoves();

    // Device memory that create() allocates: none without a second tier.
    static size_t bytes(const KvCacheView* kv, const StepLimits& limits);
    cudaError_t create(const KvCacheView* kv, const StepLimits& limits);

    // Cuts the copies of `step` into groups and writes them to `list` (max_copies() of the limits), staging
    // blocks in place of those of the second tier. Returns their number.
    int32_t plan(const StepInput& step, BlockCopy* list);
    // Launches what plan() wrote, from `list` on the device, on `stream` and beside it.
    cudaError_t launch(const KvCacheView* kv, const BlockCopy* list, cudaStream_t stream);
    // Records `event` behind all transfers so far; without a second tier there are none.
    cudaError_t record(cudaEvent_t event);

private:
    static constexpr int kChunk = 16;  // blocks of a group, each way
    static constexpr int kInChunks = kMaxLateReturns / kChunk, kOutChunks = 8;
    static constexpr int kChunks = kInChunks + kOutChunks;
    static constexpr int kMaxInFlight = 4;  // steps; those before them have been waited for

    struct Group {
        int32_t same, out, in;        // where its copies begin in same_, out_ and in_
        int32_t n_same, n_out, n_in;  // either copies within the cache, or moves
        int out_chunk, in_chunk;
        uint32_t written;  // chunks from which the blocks that come back went out a short time ago
    };
    // When a block of the second tier was written last, and from which chunk.
    struct HostWrite {
        int64_t plan = -kMaxInFlight;
        int chunk = 0;
    };

    bool adds_to(const Group& group, const BlockCopy& copy) const;
    void add(const BlockCopy& copy);
    void cut(const StepInput& step);
    cudaError_t transfer(const KvCacheView* kv, const BlockCopy& copy, int slot);

    int32_t n_blocks_ = 0;
    bool has_host_ = false;
    cudaStream_t in_stream_ = nullptr, out_stream_ = nullptr;  // of the transfers
    char* staging_[kMaxCacheGroups] = {};
    cudaEvent_t filled_[kChunks] = {};   // the chunk can be read
    cudaEvent_t emptied_[kChunks] = {};  // and written again
    int next_in_ = 0, next_out_ = 0;
    int last_in_ = -1;  // chunk

    std::vector<Group> groups_;
    std::vector<BlockCopy> same_, out_, in_;  // of the step, by kind
    std::vector<int32_t> written_;            // [blocks of both tiers] the last group that writes it
    int32_t group_id_ = 0;
    std::vector<HostWrite> host_writes_;  // [blocks of the second tier]
    int64_t plan_id_ = 0;
    bool late_ = false;  // what comes back in this step is unpacked by the next

    struct Late {
        std::vector<BlockCopy> copies;  // from staging blocks
        std::vector<int> chunks;
    };
    Late arriving_, arrived_;
};

}  // namespace rvllm::cuda
