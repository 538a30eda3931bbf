// prefill_attention_kernel: tiles of query rows against the paged cache (flash attention 2, 2307.08691),
// mma.sync with float32 softmax.
//
// A query row is (token, head of the group), so all heads that share keys are rows of one tile. Four
// warps hold 16 or 32 rows each; 64 keys and their values are in flight while the previous 64 are used.
#pragma once
#include "attention/tile.cuh"

namespace rvllm::cuda {

template <int D>
constexpr int kRowTiles = row_tiles(D);
template <int D>
constexpr int kPrefillRows = prefill_rows(D);

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr bool kIsSm90a = true;  // which has a kernel of its own
#else
constexpr bool kIsSm90a = false;
#endif
template <int D>
constexpr int kPrefillKeys = prefill_keys(kArch, D);

template <typename T, int D>
__device__ __forceinline__ void prefill_tile(const AttentionParams& p, uint8_t* smem) {
    constexpr int M = kRowTiles<D>, kKeys = kPrefillKeys<D>, kTileBytes = kKeys * kRowBytes<D>,
                  kGranuleBytes = kGranule * kRowBytes<D>, kShare = kKeys / kPrefillWarps;
    pdl_wait();
    pdl_launch_dependents();
    const PrefillItem item = p.work.prefill[blockIdx.y];
    const int kv_head = blockIdx.x, group = p.group_size;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t queries = smem_ptr(smem), keys = queries + kPrefillRows<D> * kRowBytes<D>;
    const uint32_t values = keys + 2 * kTileBytes;
    const int32_t* table = p.table_blocks + item.table_start;
    const int n_tiles = (item.end_key + kKeys - 1) / kKeys;

    // Element offset of the rows that this warp loads of a tile; keys past the end read block 0.
    const auto share_of = [&](int tile) {
        const int key = tile * kKeys + warp * kShare;
        if (key >= item.end_key) return (int64_t)0;
        return table[key / p.block_size] * p.block_elements +
               ((int64_t)kv_head * p.block_size + key % p.block_size) * D;
    };
    const auto load = [&](const void* from, uint32_t to, int tile, int64_t at) {
        if (tile < n_tiles) {
            const int n_valid = item.end_key - tile * kKeys - warp * kShare;
            load_rows<T, D, kShare>(to + tile % 2 * kTileBytes + warp * kShare * kRowBytes<D>,
                                    static_cast<const T*>(from) + at, n_valid);
        }
        copy_commit();
    };

    for (int c = threadIdx.x; c < kPrefillRows<D> * (D / 8); c += 32 * kPrefillWarps) {
        const int tile_row = c / (D / 8), piece = c % (D / 8), row = item.first_row + tile_row;
        const bool valid = row < item.n_rows;
        const int64_t token = item.token + (valid ? row / group : 0);
        const int head = kv_head * group + (valid ? row % group : 0);
        copy16_async(queries + tile_row * kRowBytes<D> + piece * 16,
                     static_cast<const T*>(p.q) + token * p.q_stride + (int64_t)head * D + piece * 8, valid);
    }
    int64_t at = share_of(0);
    load(p.k, keys, 0, at);
    load(p.v, values, 0, at);
    at = share_of(1);

    // Positions of this lane's rows, and the offset of the A fragments of the queries.
    int position[M][2];
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
            position[m][h] =
                item.first_position + (item.first_row + (warp * M + m) * 16 + lane / 4 + 8 * h) / group;
    const int lowest = item.first_position + (item.first_row + warp * M * 16) / group;
    const uint32_t query_at = queries + (warp * M * 16 + lane % 16) * kRowBytes<D> + lane / 16 * 16;
    const uint32_t key_at = key_offset<D>(), value_at = value_offset<D>();

    float out[M][D / 8][4] = {};
    SoftmaxRows rows[M];
    for (int tile = 0; tile < n_tiles; ++tile) {
        copy_wait<1>();  // the keys of this tile
        __syncthreads();
        load(p.k, keys, tile + 1, at);
        load(p.v, values, tile + 1, at);
        at = share_of(tile + 2);

        const uint32_t k_tile = keys + tile % 2 * kTileBytes + key_at;
        float s[M][kKeys / 8][4] = {};
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
            uint32_t q[M][4];
#pragma unroll
            for (int m = 0; m < M; ++m) ldmatrix4(q[m], query_at + m * 16 * kRowBytes<D> + d * 32);
#pragma unroll
            for (int n = 0; n < kKeys / 16; ++n) {
                uint32_t b[4];
                ldmatrix4(b, k_tile + n * kGranuleBytes + d * 32);
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma_k16<T>(s[m][2 * n], q[m], b[0], b[1]);
                    mma_k16<T>(s[m][2 * n + 1], q[m], b[2], b[3]);
                }
            }
        }
        if ((tile + 1) * kKeys > lowest + 1) {
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        if (tile * kKeys + n * 8 + lane % 4 * 2 + i % 2 > position[m][i / 2])
                            s[m][n][i] = -INFINITY;
        }
#pragma unroll
        for (int m = 0; m < M; ++m) softmax_step(s[m], out[m], rows[m], p.scale);

        copy_wait<2>();  // the values of this tile
        __syncthreads();
        const uint32_t v_tile = values + tile % 2 * kTileBytes + value_at;
#pragma unroll
        for (int n = 0; n < kKeys / 16; ++n) {
            uint32_t a[M][4];
#pragma unroll
            for (int m = 0; m < M; ++m) weights_fragment<T>(a[m], s[m][2 * n], s[m][2 * n + 1]);
#pragma unroll
            for (int d = 0; d < D / 16; ++d) {
                uint32_t b[4];
                ldmatrix4_trans(b, v_tile + n * kGranuleBytes + d * 32);
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma_k16<T>(out[m][2 * d], a[m], b[0], b[1]);
                    mma_k16<T>(out[m][2 * d + 1], a[m], b[2], b[3]);
                }
            }
        }
    }
    copy_wait<0>();

#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = item.first_row + (warp * M + m) * 16 + lane / 4 + 8 * h;
            const float inverse = 1.0f / quad_sum(rows[m].sum[h]);
            if (row >= item.n_rows) continue;
            T* y = static_cast<T*>(p.y) + (int64_t)(item.token + row / group) * p.y_stride +
                   (int64_t)(kv_head * group + row % group) * D + lane % 4 * 2;
#pragma unroll
            for (int t = 0; t < D / 8; ++t) {
                *reinterpret_cast<uint32_t*>(y + t * 8) =
                    pack2<T>(out[m][t][2 * h] * inverse, out[m][t][2 * h + 1] * inverse);
            }
        }
    }
}

template <typename T, int D>
__global__ void __launch_bounds__(32 * kPrefillWarps) prefill_attention_kernel(AttentionParams p) {
    extern __shared__ __align__(16) uint8_t smem[];
    if constexpr (kHasProducts<T> && !kIsSm90a) {
        prefill_tile<T, D>(p, smem);
    } else {
        __trap();  // find() refuses
    }
}

}  // namespace rvllm::cuda
