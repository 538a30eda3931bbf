// Which tiles a cluster of linear_large_kernel computes.
//
// A tile is R row blocks (one per CTA of the cluster) by a number of tokens. Whole rounds of tiles come
// first, one per cluster; the K of the tiles that are left is split, so that they take every cluster once.
#pragma once
#include "device/cluster.cuh"
#include "gemm/large.h"
#include "gemm/layout.h"
#include "gemm/params.h"

namespace rvllm::cuda {

// Chunks [begin, end) of a tile.
struct LargeSegment {
    int group, token0;  // of R row blocks; first token
    int begin, end;
    int part;  // of plan.split parts of the tile; -1: the tile is whole
    bool last;
    int first_cta;    // of the grid, with this rank and part 0
    int part_stride;  // CTAs between parts
};

class LargeSchedule {
public:
    __device__ __forceinline__ LargeSchedule(const LargePlan& plan, int cluster)
        : plan_(plan), next_(cluster) {}

    __device__ __forceinline__ bool next(LargeSegment& s) {
        const int rest = plan_.rest.n, n_parts = plan_.split.n;
        int tile = next_;
        next_ += plan_.n_clusters;
        s.begin = 0;
        s.end = plan_.chunks;
        s.part = -1;
        if (tile >= plan_.n_whole) {
            const int i = tile - plan_.n_whole;
            if (i >= rest * n_parts) return false;
            if (n_parts > 1) {
                s.part = plan_.rest.quotient(i);
                tile = plan_.n_whole + i - s.part * rest;
                s.begin = plan_.split.quotient(plan_.chunks * s.part);
                s.end = plan_.split.quotient(plan_.chunks * (s.part + 1));
                const int n_ranks = cluster_size();
                s.first_cta = (i - s.part * rest) * n_ranks + cluster_rank();
                s.part_stride = rest * n_ranks;
            }
        }
        s.last = next_ >= plan_.n_whole + rest * n_parts;
        // Tiles of neighbouring indices share weights, then tokens.
        const int band = plan_.band_tiles.quotient(tile), first = band * plan_.band;
        const bool is_last = first + plan_.band >= plan_.n_token_tiles;
        tile -= band * plan_.band_tiles.n;
        s.group = is_last ? plan_.last.quotient(tile) : plan_.width.quotient(tile);
        s.token0 = (first + tile - s.group * (is_last ? plan_.last.n : plan_.width.n)) * plan_.tokens;
        return true;
    }

private:
    const LargePlan& plan_;
    int next_;
};

// Where the chunks of a segment come from.
struct LargeSource {
    const uint8_t* weight;  // tile of this CTA's row block
    int column, token;      // of this CTA's share of the token tile
    int left;               // chunks

    __device__ __forceinline__ void open(const LinearParams& p, const LargePlan& plan, const LargeSegment& s,
                                         int rank, int n_ranks) {
        const int block = min(s.group * n_ranks + rank, plan.n_blocks - 1);
        weight = p.weight + ((size_t)block * plan.chunks + s.begin) * kTileBytes;
        column = s.begin * kChunk;
        token = s.token0 + rank * plan.share;
        left = s.end - s.begin;
    }
};

}  // namespace rvllm::cuda
