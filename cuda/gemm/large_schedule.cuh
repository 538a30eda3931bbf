// Which tiles a cluster of linear_large_kernel computes, and the walk of its loads through them.
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
    int part;         // of plan.split parts of the tile; -1: the tile is whole
    int first_cta;    // of the grid, with this rank and part 0
    int part_stride;  // CTAs between parts
};

class LargeSchedule {
public:
    __device__ __forceinline__ LargeSchedule(const LargePlan& plan, int cluster)
        : plan_(plan), next_(cluster) {}

    __device__ __forceinline__ bool next(LargeSegment& s) {
        int tile = next_;
        next_ += plan_.n_clusters;
        s.begin = 0;
        s.end = plan_.chunks;
        s.part = -1;
        if (tile >= plan_.n_whole) {
            const int i = tile - plan_.n_whole, rest = plan_.n_tiles - plan_.n_whole;
            if (i >= rest * plan_.split) return false;
            s.part = i / rest;
            tile = plan_.n_whole + i - s.part * rest;
            s.begin = plan_.chunks * s.part / plan_.split;
            s.end = plan_.chunks * (s.part + 1) / plan_.split;
            const int n_ranks = cluster_size();
            s.first_cta = (i - s.part * rest) * n_ranks + cluster_rank();
            s.part_stride = rest * n_ranks;
            next_ = 1 << 30;
        }
        // Tiles of neighbouring indices share weights, then tokens.
        int width = plan_.n_token_tiles, token_tile = 0;
        if (plan_.band < width) {
            const int in_band = plan_.band * plan_.n_groups, b = tile / in_band;
            tile -= b * in_band;
            token_tile = b * plan_.band;
            width = min(plan_.band, width - token_tile);
        }
        s.group = tile / width;
        s.token0 = (token_tile + tile - s.group * width) * plan_.tokens;
        return true;
    }

    // Of all segments, before the first.
    __device__ __forceinline__ int total_chunks() const {
        const int rounds = (plan_.n_whole - next_ + plan_.n_clusters - 1) / plan_.n_clusters;
        const int rest = plan_.n_tiles - plan_.n_whole;
        if (next_ >= rest * plan_.split) return rounds * plan_.chunks;
        const int part = next_ / rest;
        return rounds * plan_.chunks + plan_.chunks * (part + 1) / plan_.split -
               plan_.chunks * part / plan_.split;
    }

private:
    const LargePlan& plan_;
    int next_;
};

// One thread issues all loads: what is not an addition happens once per segment, or that thread
// becomes the bottleneck.
class LargeCursor {
public:
    __device__ __forceinline__ LargeCursor(const LargeSchedule& schedule, const LargePlan& plan,
                                           const LinearParams& p)
        : schedule_(schedule), plan_(plan), p_(p) {
        open();
    }

    __device__ __forceinline__ void advance() {
        weight += kTileBytes;
        column += kChunk;
        if (--left_ == 0) open();
    }

    const uint8_t* weight;  // tile of this CTA's row block
    int column, token;      // of this CTA's share of the token tile

private:
    __device__ __forceinline__ void open() {
        LargeSegment s;
        if (!schedule_.next(s)) return;
        const int n_ranks = cluster_size(), rank = cluster_rank();
        const size_t block = min(s.group * n_ranks + rank, plan_.n_blocks - 1);
        weight = p_.weight + (block * plan_.chunks + s.begin) * kTileBytes;
        column = s.begin * kChunk;
        token = s.token0 + rank * plan_.share;
        left_ = s.end - s.begin;
    }

    LargeSchedule schedule_;
    const LargePlan& plan_;
    const LinearParams& p_;
    int left_;
};

}  // namespace rvllm::cuda
