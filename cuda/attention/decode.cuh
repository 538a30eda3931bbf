// decode_attention_kernel: one query per sequence, split-KV (flash decoding), heads of a group as the 16
// rows of mma.
//
// A CTA takes (split, tile of heads) pairs in turn. Each of its warps streams every fourth granule of 16
// keys through a ring of its own and keeps a running softmax; the warps are merged in shared memory. The
// CTA that finishes the last split of a sequence adds the splits up, in their order.
#pragma once
#include "attention/merge.cuh"
#include "attention/tile.cuh"

namespace rvllm::cuda {

template <int D>
constexpr int kDecodeStages = decode_stages(kArch, D);

template <typename T, int D>
__device__ __forceinline__ void decode_items(const AttentionParams& p, uint8_t* smem) {
    __shared__ bool is_last;
    constexpr int kStages = kDecodeStages<D>, kSteps = D / 16, kTileBytes = kGranule * kRowBytes<D>;
    pdl_wait();
    pdl_launch_dependents();
    const AttentionWork& w = p.work;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int head_tiles = (p.group_size + kTileHeads - 1) / kTileHeads, n_units = p.n_kv_heads * head_tiles;
    const int n_items = w.header[0] * n_units;
    const uint32_t ring = smem_ptr(smem) + warp * kStages * 2 * kTileBytes;
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
                load_rows<T, D, kGranule>(dst, static_cast<const T*>(p.k) + at, item.end_key - key);
                load_rows<T, D, kGranule>(dst + kTileBytes, static_cast<const T*>(p.v) + at,
                                          item.end_key - key);
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

        finish_item<T, D>(p, current, unit, n_units, head, n_rows, out, rows, reinterpret_cast<float*>(smem),
                          &is_last);
    }
}

template <typename T, int D>
__global__ void __launch_bounds__(32 * kDecodeWarps, D > 128 ? 1 : kDecodeCtas)
    decode_attention_kernel(AttentionParams p) {
    extern __shared__ __align__(16) uint8_t smem[];
    if constexpr (kHasProducts<T>) {
        decode_items<T, D>(p, smem);
    } else {
        __trap();  // find() refuses
    }
}

}  // namespace rvllm::cuda
