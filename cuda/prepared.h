// What is made ready for the steps of one bound plan: staging, the cut of attention, captured graphs.
#pragma once
#include <vector>

#include "block_moves.h"
#include "context.h"

namespace rvllm::cuda {

constexpr int kStagingSlots = 3;  // steps whose inputs may be on their way

// Int32 arrays that lie one behind the other in pinned memory, whence one kernel puts them in place.
struct Segment {
    int32_t* dst;
    int32_t src;       // index in pinned memory
    int32_t n;         // values
    int32_t n_padded;  // written in all; those behind n are `fill`
    int32_t fill;
};
constexpr int kMaxSegments = 8 + 7 * kMaxCacheGroups;
struct Segments {
    Segment of[kMaxSegments];
    int32_t n = 0;
};

// A decode step of `n_rows` sequences, padded, as a graph.
struct Bucket {
    int32_t n_rows;
    cudaGraphExec_t graph;
};

struct Prepared {
    const StepInput* step = nullptr;  // whose addresses the calls are bound to
    StepLimits limits;
    AttentionWork attention[kMaxCacheGroups];
    void* device_memory = nullptr;  // attention's lists and partial results
    size_t device_bytes = 0;
    char* linear_scratch = nullptr;  // part of it, see Context
    size_t linear_scratch_bytes = 0;
    char* pinned = nullptr;  // kStagingSlots times staged_bytes
    size_t staged_bytes = 0;
    cudaEvent_t placed[kStagingSlots] = {};  // the slot has been read
    int slot = 0;
    BlockMoves moves;
    std::vector<Bucket> buckets;
    const Bucket* bucket = nullptr;  // of the staged step; nullptr: launched op by op

    ~Prepared();
};

// Device memory that prepare_steps() allocates.
size_t prepared_bytes(const Context& context, const OpCall* calls, int32_t n_calls, const KvCacheView* kv,
                      const StepLimits& limits);

// Allocates everything. nullptr: `error` says what failed.
Prepared* prepare_steps(Context& context, const OpCall* calls, int32_t n_calls, const KvCacheView* kv,
                        const StepInput* step, const StepLimits& limits, char* error, size_t error_size);

// Captures a graph per bucket of decode steps. Returns the first error.
cudaError_t capture_decodes(Context& context, Prepared& prepared, const OpCall* calls, int32_t n_calls,
                            const KvCacheView* kv);

// Sends a step on its way; chooses its bucket.
cudaError_t stage_step(Context& context, Prepared& prepared, StepInput* dst, const StepInput& src);

// Launches the ops for a step of that input.
void launch_calls(Context& context, const OpCall* calls, int32_t n_calls, const KvCacheView* kv,
                  const StepInput& step);

// The architecture that kernels were compiled for which are not an architecture's own: it decides the sizes
// of their tiles, also where the driver compiled them.
cudaError_t compiled_arch(int* arch);

// Kernels of step.cu.
cudaError_t place_segments(const Segments& segments, const int32_t* pinned, const int32_t* token_ids,
                           const int32_t* last_token, cudaStream_t stream);
// Copies blocks of the cache and of `staging` (by cache group), numbered behind them; in the order of the
// list, or all at once.
cudaError_t copy_blocks(const KvCacheView* kv, char* const* staging, const BlockCopy* copies,
                        int32_t n_copies, bool ordered, cudaStream_t stream);

}  // namespace rvllm::cuda
