// Launches linear_large_kernel (large.cuh); one instantiation per translation unit.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "device/divisor.h"
#include "gemm/choose.h"
#include "gemm/params.h"

namespace rvllm::cuda {

// How the tiles of a product are dealt to clusters of R CTAs (large_schedule.cuh).
struct LargePlan {
    int32_t tokens, share;  // per tile; of them, those that one CTA fetches for its cluster
    int32_t chunks;         // of 64 columns
    int32_t n_blocks, n_groups, n_token_tiles;  // of 128 rows; of R blocks
    int32_t n_clusters;
    int32_t n_whole;                  // tiles that are not split, whole rounds of them
    Divisor rest, split;              // the other tiles, parts of each
    int32_t band;                     // token tiles whose tiles run side by side
    Divisor band_tiles, width, last;  // of a band; token tiles in it, and in the last one
    bool staged;                      // rows of y and residual are 16-byte aligned: stored by the copy engine
};

template <typename T, int Tokens>
cudaError_t launch_large(const LinearDesc& desc, const CUtensorMap& x_map, const CUtensorMap& y_map,
                         const LargePlan& plan, const LinearParams& params, cudaStream_t stream, bool pdl);

}  // namespace rvllm::cuda
