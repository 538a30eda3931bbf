// The kernels around a step's ops: arrays of the step to their places, token ids fed back, block copies.
#include <algorithm>

#include "prepared.h"

namespace rvllm::cuda {
namespace {

constexpr int kThreads = 256;

// All segments at once, fetched from the host by the kernel itself: a copy to the device before it would cost
// more than the kernel.
__global__ void place_segments_kernel(const __grid_constant__ Segments segments,
                                      const int32_t* __restrict__ pinned, const int32_t* token_ids,
                                      const int32_t* last_token) {
    const Segment& g = segments.of[blockIdx.y];
#pragma unroll 4
    for (int i = blockIdx.x * kThreads + threadIdx.x; i < g.n_padded; i += gridDim.x * kThreads) {
        int32_t value = i < g.n ? pinned[g.src + i] : g.fill;
        if (g.dst == token_ids && value < 0 && last_token) value = last_token[-1 - value];
        g.dst[i] = value;
    }
}

// A block of the cache, or of staging, in 16-byte pieces: keys of all layers, then values.
struct BlockMap {
    uint4* cache[2];  // keys, values: [n_layers][n_blocks][layer_pieces]
    uint4* staging;   // [block][part_pieces] keys, then values
    int32_t n_blocks;
    int32_t layer_pieces;  // of one layer of a block
    int32_t part_pieces;   // of all its layers

    __device__ uint4* at(int32_t block, int part, int32_t piece) const {
        if (block >= n_blocks)
            return staging + ((int64_t)(block - n_blocks) * 2 + part) * part_pieces + piece;
        const int32_t layer = piece / layer_pieces;
        return cache[part] + ((int64_t)layer * n_blocks + block) * layer_pieces + piece % layer_pieces;
    }
};

// One thread moves the same 16 bytes of each copy in turn, so that a copy may read what one before wrote;
// with a grid as deep as the list is long, of one copy.
__global__ void copy_blocks_kernel(const BlockMap map, int32_t group, const BlockCopy* copies,
                                   int32_t n_copies) {
    const int32_t piece = blockIdx.x * kThreads + threadIdx.x;
    if (piece >= map.part_pieces) return;
    const int part = blockIdx.y;
    for (int c = blockIdx.z; c < n_copies; c += gridDim.z) {
        const BlockCopy copy = copies[c];
        if (copy.group == group) *map.at(copy.dst, part, piece) = *map.at(copy.src, part, piece);
    }
}

}  // namespace

cudaError_t compiled_arch(int* arch) {
    cudaFuncAttributes attributes;
    const cudaError_t e = cudaFuncGetAttributes(&attributes, place_segments_kernel);
    if (e == cudaSuccess) *arch = attributes.ptxVersion;
    return e;
}

cudaError_t place_segments(const Segments& segments, const int32_t* pinned, const int32_t* token_ids,
                           const int32_t* last_token, cudaStream_t stream) {
    int32_t longest = 0;
    for (int32_t s = 0; s < segments.n; ++s) longest = std::max(longest, segments.of[s].n_padded);
    if (longest == 0) return cudaSuccess;
    const dim3 grid(std::min(256, (longest + kThreads - 1) / kThreads), segments.n);
    place_segments_kernel<<<grid, kThreads, 0, stream>>>(segments, pinned, token_ids, last_token);
    return cudaGetLastError();
}

cudaError_t copy_blocks(const KvCacheView* kv, char* const* staging, const BlockCopy* copies,
                        int32_t n_copies, bool ordered, cudaStream_t stream) {
    cudaError_t e = cudaSuccess;
    for (int32_t g = 0; g < kMaxCacheGroups && n_copies > 0 && e == cudaSuccess; ++g) {
        const int64_t layer_bytes = (int64_t)kv[g].n_kv_heads * kv[g].block_size * kv[g].head_dim *
                                    dtype_bytes(static_cast<DType>(kv[g].dtype));
        if (layer_bytes == 0) continue;
        if (layer_bytes % 16) return cudaErrorInvalidValue;
        const auto pieces = static_cast<int32_t>(layer_bytes / 16);
        const BlockMap map{{static_cast<uint4*>(kv[g].k), static_cast<uint4*>(kv[g].v)},
                           reinterpret_cast<uint4*>(staging[g]),
                           kv[g].n_blocks,
                           pieces,
                           pieces * kv[g].n_layers};
        const dim3 grid((map.part_pieces + kThreads - 1) / kThreads, 2, ordered ? 1 : n_copies);
        copy_blocks_kernel<<<grid, kThreads, 0, stream>>>(map, g, copies, n_copies);
        e = cudaGetLastError();
    }
    return e;
}

}  // namespace rvllm::cuda
