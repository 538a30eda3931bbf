// The kernels around a step's ops: arrays of the step to their places, token ids fed back, block copies.
#include <algorithm>

#include "prepared.h"

namespace rvllm::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void place_segments_kernel(const __grid_constant__ Segments segments,
                                      const int32_t* __restrict__ staged, const int32_t* token_ids,
                                      const int32_t* last_token) {
    const int first = blockIdx.x * kThreads + threadIdx.x, stride = gridDim.x * kThreads;
    for (int s = 0; s < segments.n; ++s) {
        const Segment& g = segments.of[s];
        for (int i = first; i < g.n_padded; i += stride) {
            int32_t value = i < g.n ? staged[g.src + i] : g.fill;
            if (g.dst == token_ids && value < 0 && last_token) value = last_token[-1 - value];
            g.dst[i] = value;
        }
    }
}

// One thread moves the same 16 bytes of each copy in turn, so that a copy may read what one before wrote.
__global__ void copy_blocks_kernel(uint4* cache, int64_t block_pieces, int64_t layer_pieces, int64_t n_pieces,
                                   int32_t group, const BlockCopy* copies, int32_t n_copies) {
    const int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    if (i >= n_pieces) return;
    uint4* at = cache + i / block_pieces * layer_pieces + i % block_pieces;
    for (int c = 0; c < n_copies; ++c) {
        if (copies[c].group == group) at[copies[c].dst * block_pieces] = at[copies[c].src * block_pieces];
    }
}

}  // namespace

cudaError_t place_segments(const Segments& segments, const int32_t* staged, const int32_t* token_ids,
                           const int32_t* last_token, cudaStream_t stream) {
    int32_t longest = 1;
    for (int32_t s = 0; s < segments.n; ++s) longest = std::max(longest, segments.of[s].n_padded);
    const int grid = std::min(64, (longest + kThreads - 1) / kThreads);
    place_segments_kernel<<<grid, kThreads, 0, stream>>>(segments, staged, token_ids, last_token);
    return cudaGetLastError();
}

cudaError_t copy_blocks(const KvCacheView& kv, int32_t group, const BlockCopy* copies, int32_t n_copies,
                        cudaStream_t stream) {
    const int64_t block_bytes =
        (int64_t)kv.n_kv_heads * kv.block_size * kv.head_dim * dtype_bytes(static_cast<DType>(kv.dtype));
    if (block_bytes == 0) return cudaSuccess;
    if (block_bytes % 16) return cudaErrorInvalidValue;
    const int64_t pieces = block_bytes / 16, n = pieces * kv.n_layers;
    const unsigned grid = (unsigned)((n + kThreads - 1) / kThreads);
    for (void* cache : {kv.k, kv.v}) {
        copy_blocks_kernel<<<grid, kThreads, 0, stream>>>(static_cast<uint4*>(cache), pieces,
                                                          pieces * kv.n_blocks, n, group, copies, n_copies);
    }
    return cudaGetLastError();
}

}  // namespace rvllm::cuda
