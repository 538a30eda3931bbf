// Which parts of which tiles a CTA of linear_tile_kernel computes.
//
// Whole tiles come first, one per CTA and round. The chunks of the others, one tile behind the other, are
// cut evenly: a CTA computes the end of a tile, then whole ones, then the beginning of the next.
#pragma once
#include "gemm/layout.h"
#include "gemm/params.h"
#include "gemm/tile.h"

namespace rvllm::cuda {

// Chunks [begin, end) of a tile.
struct TileSegment {
    int block, token0;
    int begin, end;
    int first_unit;  // of the tile; of tiles that are cut
};

// Who computes a tile: consecutive CTAs.
struct TileParts {
    int first_cta, n;
};

class TileSchedule {
public:
    __device__ __forceinline__ TileSchedule(const TilePlan& plan, int tokens)
        : plan_(plan), tokens_(tokens), next_(blockIdx.x) {
        at_ = (uint32_t)plan.n_units * blockIdx.x / gridDim.x;
        end_ = (uint32_t)plan.n_units * (blockIdx.x + 1) / gridDim.x;
    }

    __device__ __forceinline__ bool next(TileSegment& s) {
        s.begin = 0;
        s.end = plan_.chunks;
        if (next_ < plan_.n_whole) {
            place(next_, s);
            next_ += gridDim.x;
            return true;
        }
        if (at_ == end_) return false;
        const uint32_t tile = at_ / plan_.chunks;
        s.first_unit = tile * plan_.chunks;
        s.begin = at_ - s.first_unit;
        s.end = min(plan_.chunks, (int)end_ - s.first_unit);
        place(plan_.n_whole + tile, s);
        at_ = s.first_unit + s.end;
        return true;
    }

    __device__ __forceinline__ bool is_cut(const TileSegment& s) const {
        return s.end - s.begin < plan_.chunks;
    }

    __device__ __forceinline__ TileParts parts(const TileSegment& s) const {
        const int first = cta_of(s.first_unit);
        return {first, cta_of(s.first_unit + plan_.chunks - 1) - first + 1};
    }

private:
    __device__ __forceinline__ int cta_of(uint32_t unit) const {
        return ((unit + 1) * gridDim.x - 1) / plan_.n_units;
    }

    // Tiles of neighbouring indices share weights, then tokens.
    __device__ __forceinline__ void place(uint32_t tile, TileSegment& s) const {
        s.block = tile;
        s.token0 = 0;
        if (plan_.n_token_tiles == 1) return;
        const uint32_t in_band = plan_.band * plan_.n_blocks, first = tile / in_band * plan_.band;
        const uint32_t width = min((uint32_t)plan_.band, plan_.n_token_tiles - first), i = tile % in_band;
        s.block = i / width;
        s.token0 = (first + i % width) * tokens_;
    }

    const TilePlan& plan_;
    int tokens_, next_;
    uint32_t at_, end_;  // of the units
};

}  // namespace rvllm::cuda
