// decode_attention_kernel: one query per sequence, split-KV (flash decoding), heads of a group as the 16
// rows of mma.
//
// A CTA takes (split, tile of heads) pairs in turn. Each of its warps streams every fourth granule of 16
// keys through a ring of its own and keeps a running softmax; the warps are merged in shared memory. The
// CTA that finishes the last split of a sequence adds the splits up, in their order.
#pragma once
#include "attention/tile.cuh"

namespace rvllm::cuda {

static_assert(kMaxSplits % 32 == 0, "combine_splits() gives each lane whole rounds of splits");

template <int D>
constexpr int kDecodeStages = decode_stages(D);

// Adds up the splits of one sequence for `n_rows` heads from `head` on. `weights`: [n_rows][kMaxSplits] of
// shared memory.
template <typename T, int D>
__device__ __forceinline__ void combine_splits(const AttentionParams& p, const DecodeItem& item, int head,
                                               int n_rows, float* weights) {
    const AttentionWork& w = p.work;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t first = (int64_t)item.partial * p.n_heads + head;
    for (int row = warp; row < n_rows; row += kDecodeWarps) {
        float2 stats[kMaxSplits / 32];
        float top = -INFINITY, sum = 0;
#pragma unroll
        for (int i = 0; i < kMaxSplits / 32; ++i) {
            const int split = lane + 32 * i;
            stats[i] = make_float2(-INFINITY, 0);
            if (split < item.n_splits) {
                const int64_t at = first + (int64_t)split * p.n_heads + row;
                stats[i] = __ldcg(reinterpret_cast<const float2*>(w.partial_stats) + at);
            }
            top = fmaxf(top, stats[i].x);
        }
        top = warp_max(top);
#pragma unroll
        for (int i = 0; i < kMaxSplits / 32; ++i) sum += exp2f(stats[i].x - top) * stats[i].y;
        sum = warp_sum(sum);
#pragma unroll
        for (int i = 0; i < kMaxSplits / 32; ++i) {
            weights[row * kMaxSplits + lane + 32 * i] = exp2f(stats[i].x - top) / sum;
        }
    }
    __syncthreads();
    T* y = static_cast<T*>(p.y) + item.token * p.y_stride + (int64_t)head * D;
    for (int e = threadIdx.x; e < n_rows * (D / 4); e += 32 * kDecodeWarps) {
        const int row = e / (D / 4), d = e % (D / 4) * 4;
        const float* from = w.partial_out + (first + row) * D + d;
        float4 out = make_float4(0, 0, 0, 0);
#pragma unroll 8
        for (int i = 0; i < item.n_splits; ++i) {
            const float4 v = __ldcg(reinterpret_cast<const float4*>(from + (int64_t)i * p.n_heads * D));
            const float weight = weights[row * kMaxSplits + i];
            out.x += weight * v.x;
            out.y += weight * v.y;
            out.z += weight * v.z;
            out.w += weight * v.w;
        }
        store4<T>(y + row * D + d, out);
    }
}

template <typename T, int D>
__global__ void __launch_bounds__(32 * kDecodeWarps, D > 128 ? 1 : kDecodeCtas)
    decode_attention_kernel(AttentionParams p) {
#if __CUDA_ARCH__ >= 800  // kAttentionArch
    extern __shared__ __align__(16) uint8_t smem[];
    __shared__ bool is_last;
    constexpr int kStages = kDecodeStages<D>, kSteps = D / 16, kTileBytes = kGranule * kRowBytes<D>;
    pdl_wait();
    pdl_launch_dependents();
    const AttentionWork& w = p.work;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int head_tiles = (p.group_size + kTileHeads - 1) / kTileHeads, n_units = p.n_kv_heads * head_tiles;
    const int n_items = w.header[0] * n_units;
    const uint32_t ring = shared_address(smem) + warp * kStages * 2 * kTileBytes;
    const uint32_t key_at = key_offset<D>(), value_at = value_offset<D>();

    // The first 32 granules of this warp: lane i holds the block of granule i.
    const auto block_of = [&](const DecodeItem& item, int i) {
        const int key = item.first_key + (warp + i * kDecodeWarps) * kGranule;
        return key < item.end_key ? p.table_blocks[item.table_start + key / p.block_size] : 0;
    };
    DecodeItem item;
    int32_t block = 0;
    if (blockIdx.x < n_items) {
        item = w.decode[blockIdx.x / n_units];
        block = block_of(item, lane);
    }

    for (int work = blockIdx.x; work < n_items; work += gridDim.x) {
        const int unit = work % n_units, kv_head = unit / head_tiles, tile = unit % head_tiles;
        const int head = kv_head * p.group_size + tile * kTileHeads;
        const int n_rows = min(kTileHeads, p.group_size - tile * kTileHeads);
        const int n_granules = (item.end_key - item.first_key + kGranule - 1) / kGranule;
        const int n_mine = n_granules > warp ? (n_granules - warp + kDecodeWarps - 1) / kDecodeWarps : 0;
        const auto load = [&](int i) {
            if (i < n_mine) {
                if (i % 32 == 0 && i > 0) block = block_of(item, i + lane);
                const int key = item.first_key + (warp + i * kDecodeWarps) * kGranule;
                const int64_t at = __shfl_sync(0xffffffff, block, i % 32) * p.block_elements +
                                   (kv_head * p.block_size + key % p.block_size) * D;
                const uint32_t dst = ring + i % kStages * 2 * kTileBytes;
                load_granule<T, D>(dst, static_cast<const T*>(p.k) + at, item.end_key - key);
                load_granule<T, D>(dst + kTileBytes, static_cast<const T*>(p.v) + at, item.end_key - key);
            }
            copy_commit();
        };
#pragma unroll
        for (int i = 0; i < kStages - 1; ++i) load(i);

        // A fragments of the queries: row = head, straight from memory.
        uint32_t q[kSteps][4];
        const T* query = static_cast<const T*>(p.q) + item.token * p.q_stride + (int64_t)head * D;
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int row = lane / 4 + i % 2 * 8, column = k * 16 + i / 2 * 8 + lane % 4 * 2;
                q[k][i] = row < n_rows ? *reinterpret_cast<const uint32_t*>(query + row * D + column) : 0;
            }
        }

        float out[D / 8][4] = {};
        SoftmaxRows rows;
        for (int i = 0; i < n_mine; ++i) {
            load(i + kStages - 1);
            copy_wait<kStages - 1>();
            __syncwarp();
            const uint32_t keys = ring + i % kStages * 2 * kTileBytes, values = keys + kTileBytes;
            float s[2][4] = {}, odd[2][4] = {};  // two sums, so that products wait less for each other
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                uint32_t b[4];
                ldmatrix4(b, keys + key_at + k * 32);
                mma_k16<T>(k % 2 ? odd[0] : s[0], q[k], b[0], b[1]);
                mma_k16<T>(k % 2 ? odd[1] : s[1], q[k], b[2], b[3]);
            }
#pragma unroll
            for (int t = 0; t < 2; ++t)
#pragma unroll
                for (int j = 0; j < 4; ++j) s[t][j] += odd[t][j];
            const int n_valid = item.end_key - item.first_key - (warp + i * kDecodeWarps) * kGranule;
            if (n_valid < kGranule) {
#pragma unroll
                for (int t = 0; t < 2; ++t)
#pragma unroll
                    for (int j = 0; j < 4; ++j)
                        if (t * 8 + lane % 4 * 2 + j % 2 >= n_valid) s[t][j] = -INFINITY;
            }
            softmax_step(s, out, rows, p.scale);
            uint32_t a[4];
            weights_fragment<T>(a, s[0], s[1]);
#pragma unroll
            for (int d = 0; d < D / 16; ++d) {
                uint32_t b[4];
                ldmatrix4_trans(b, values + value_at + d * 32);
                mma_k16<T>(out[2 * d], a, b[0], b[1]);
                mma_k16<T>(out[2 * d + 1], a, b[2], b[3]);
            }
            __syncwarp();
        }
        copy_wait<0>();
        __syncthreads();  // the rings are free

        // What comes next, while this is merged.
        const DecodeItem current = item;
        if (work + (int)gridDim.x < n_items) {
            item = w.decode[(work + gridDim.x) / n_units];
            block = block_of(item, lane);
        }

        // Merge the warps: [warp][16][D] outputs, then [warp][16][2] maxima and sums.
        float* merged = reinterpret_cast<float*>(smem);
        float* stats = merged + kDecodeWarps * kTileHeads * D;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = warp * kTileHeads + lane / 4 + 8 * h;
            const float sum = quad_sum(rows.sum[h]);
            if (lane % 4 == 0) {
                stats[2 * row] = rows.max[h];
                stats[2 * row + 1] = sum;
            }
#pragma unroll
            for (int t = 0; t < D / 8; ++t) {
                *reinterpret_cast<float2*>(merged + row * D + t * 8 + lane % 4 * 2) =
                    make_float2(out[t][2 * h], out[t][2 * h + 1]);
            }
        }
        __syncthreads();
        const int64_t partial = (int64_t)(current.partial + current.split) * p.n_heads + head;
        T* y = static_cast<T*>(p.y) + current.token * p.y_stride + (int64_t)head * D;
        for (int e = threadIdx.x; e < n_rows * D; e += blockDim.x) {
            const int row = e / D;
            float top = -INFINITY, sum = 0, value = 0;
#pragma unroll
            for (int i = 0; i < kDecodeWarps; ++i) top = fmaxf(top, stats[2 * (i * kTileHeads + row)]);
#pragma unroll
            for (int i = 0; i < kDecodeWarps; ++i) {
                const float weight = exp2f(stats[2 * (i * kTileHeads + row)] - top);
                sum += weight * stats[2 * (i * kTileHeads + row) + 1];
                value += weight * merged[i * kTileHeads * D + e];
            }
            if (current.n_splits == 1) {
                y[e] = from_float<T>(value / sum);
            } else {
                w.partial_out[partial * D + e] = value;
                if (e % D == 0) {
                    w.partial_stats[2 * (partial + row)] = top;
                    w.partial_stats[2 * (partial + row) + 1] = sum;
                }
            }
        }
        if (current.n_splits > 1) {
            __threadfence();
            __syncthreads();
            if (threadIdx.x == 0) {
                uint32_t* arrived = w.arrived + current.seq * n_units + unit;
                is_last = atomicAdd(arrived, 1) == current.n_splits - 1;
                if (is_last) *arrived = 0;
            }
            __syncthreads();
            if (is_last) {
                __threadfence();
                combine_splits<T, D>(p, current, head, n_rows, merged);
            }
        }
        __syncthreads();  // shared memory may be written again
    }
#else
    __trap();  // find() refuses
#endif
}

}  // namespace rvllm::cuda
