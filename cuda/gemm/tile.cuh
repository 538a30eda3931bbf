// linear_tile_kernel (every architecture): y = x @ weight^T by persistent CTAs.
//
// A tile is 128 weight rows and Tokens tokens. Eight warps of mma.sync work on chunks of 64 columns that
// arrive through a ring in shared memory (tile_ring.cuh), across the borders of tiles. Some tiles are
// computed by several CTAs, each with a part of K (tile_schedule.cuh, tile_sums.cuh).
#pragma once
#include "device/shared.cuh"
#include "gemm/tile_sums.cuh"

namespace rvllm::cuda {

template <typename T, int Tokens>
__global__ void __launch_bounds__(kTileThreads)
    linear_tile_kernel(const __grid_constant__ LinearParams p, const __grid_constant__ TilePlan plan) {
    extern __shared__ __align__(128) uint8_t smem[];
    const uint32_t slots = smem_ptr(smem);
    TileRing<Tokens> ring(p, plan, slots);
    ring.prefetch();
    pdl_wait();
    pdl_launch_dependents();
    ring.fill();

    TileSums<T, Tokens> sums;
    TileSchedule schedule(plan, Tokens);
    TileSegment segment;
    sums.begin(ring);
    while (schedule.next(segment)) {
        uint32_t slot = 0;
        sums.clear();
        for (int c = segment.begin; c < segment.end; ++c) {
            slot = ring.slot();
            sums.add(ring);
        }
        if (!schedule.is_cut(segment)) {
            sums.take_all();
        } else if (!sums.join(p, segment, schedule.parts(segment), plan.together)) {
            continue;
        }
        sums.finish(p, segment, smem + (slot - slots));
    }
}

}  // namespace rvllm::cuda
