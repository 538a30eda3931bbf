// Launches linear_tile_kernel (tile.cuh); one instantiation per translation unit.
#pragma once
#include <cuda_runtime_api.h>

#include "gemm/choose.h"
#include "gemm/params.h"

namespace rvllm::cuda {

// How the tiles of 128 weight rows and so many tokens are dealt to the CTAs.
struct TilePlan {
    int32_t chunks, n_blocks, n_token_tiles;
    int32_t n_whole;  // the first tiles, which one CTA computes each
    int32_t n_units;  // chunks of the other tiles, cut evenly among all CTAs
    int32_t band;     // token tiles that run side by side
    bool together;    // every CTA has one part of one tile
};

template <typename T, int Tokens>
cudaError_t launch_tile(const LinearDesc& desc, const TilePlan& plan, const LinearParams& params,
                        cudaStream_t stream, bool pdl);

}  // namespace rvllm::cuda
