// prefill_sm90_kernel: tiles of 128 query rows against the paged cache, wgmma (flash attention 3,
// 2407.08608).
//
// One warp keeps tiles of keys and of values coming, last ones first. Two warpgroups hold 64 rows each; each
// turns the scores of one tile into weights while the tensor cores compute its scores of the next tile and
// the other warpgroup's products: the two take turns in issuing. A query row is (token, head of the group).
#pragma once
#include "attention/paged.cuh"
#include "attention/products.cuh"
#include "attention/softmax.cuh"
#include "device/copy.cuh"
#include "device/mbarrier.cuh"
#include "device/pdl.cuh"

namespace rvllm::cuda {

constexpr int kWgmmaThreads = 128 * (kWgmmaGroups + 1);
template <int D>
constexpr int kWgmmaKeys = wgmma_keys(D);
constexpr int kProducerRegisters = 56, kConsumerRegisters = 224;

// Keeps the rings full. All lanes take part: each loads a box of 16 keys by 64 columns.
template <typename T, int D>
__device__ __forceinline__ void load_tiles(const CUtensorMap* k_map, const CUtensorMap* v_map,
                                           const AttentionParams& p, const PrefillItem& item, int kv_head,
                                           uint32_t k_ring, uint32_t v_ring, uint64_t* k_full,
                                           uint64_t* v_full, uint64_t* k_empty, uint64_t* v_empty) {
    constexpr int kKeys = kWgmmaKeys<D>, kGranules = kKeys / kGranule;
    constexpr int kTileBytes = kKeys * 128 * kChunks<D>;
    static_assert(kGranules * kChunks<D> <= 32, "a box per lane");
    const int lane = threadIdx.x % 32, granule = lane % kGranules, chunk = lane / kGranules;
    const bool mine = chunk < kChunks<D>;
    const int32_t* table = p.table_blocks + item.table_start;
    const uint32_t offset = chunk * kKeys * 128 + granule * kBoxBytes;
    // Row of this lane's box; keys behind the end are rows behind the cache.
    const auto row_of = [&](int tile) {
        const int key = tile * kKeys + granule * kGranule;
        if (tile < 0 || key >= item.end_key) return p.cache_rows;
        return cache_row(p, __ldcg(table + key / p.block_size), kv_head, key);
    };
    const int last = (item.end_key - 1) / kKeys;
    RingPosition at;
    int row = row_of(last);
    for (int tile = last; tile >= 0; --tile, at.advance(kWgmmaStages)) {
        const int next_row = row_of(tile - 1);
        const uint32_t keys = smem_ptr(&k_full[at.slot]), values = smem_ptr(&v_full[at.slot]);
        mbarrier_wait(smem_ptr(&k_empty[at.slot]), at.parity ^ 1);
        if (lane == 0) mbarrier_expect(keys, kTileBytes);
        __syncwarp();
        if (mine) tensor_load(k_ring + at.slot * kTileBytes + offset, k_map, chunk * 64, row, keys);

        mbarrier_wait(smem_ptr(&v_empty[at.slot]), at.parity ^ 1);
        const uint32_t to = v_ring + at.slot * kTileBytes;
        const int n_partial = tile == last ? item.end_key % kGranule : 0;
        if (n_partial == 0) {
            if (lane == 0) mbarrier_expect(values, kTileBytes);
            __syncwarp();
            if (mine) tensor_load(to + offset, v_map, chunk * 64, row, values);
        } else {
            // What lies behind the last value may be anything, and 0 * NaN is NaN: that granule is copied.
            const int partial = item.end_key % kKeys / kGranule;
            const int from = __shfl_sync(0xffffffff, row, partial);
            const T* v = static_cast<const T*>(p.v) + (int64_t)from * D;
            for (int c = lane; c < kGranule * kChunks<D> * 8; c += 32) {
                const int r = c / (kChunks<D> * 8), piece = c % (kChunks<D> * 8);
                uint4 u = make_uint4(0, 0, 0, 0);
                if (r < n_partial && piece < D / 8)
                    u = __ldcg(reinterpret_cast<const uint4*>(v + r * D) + piece);
                const uint32_t address =
                    to + piece / 8 * kKeys * 128 + partial * kBoxBytes + swizzled(r, piece % 8);
                asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(u.x), "r"(u.y),
                             "r"(u.z), "r"(u.w)
                             : "memory");
            }
            async_proxy_fence();
            __syncwarp();
            if (lane == 0) mbarrier_expect(values, kTileBytes - kChunks<D> * kBoxBytes);
            __syncwarp();
            if (mine && granule != partial) tensor_load(to + offset, v_map, chunk * 64, row, values);
        }
        row = next_row;
    }
}

// One warpgroup's 64 rows.
template <typename T, int D>
struct RowTile {
    static constexpr int kKeys = kWgmmaKeys<D>, kTileBytes = kKeys * 128 * kChunks<D>;

    float out[D / 2];
    uint32_t weights[kKeys / 16][4];
    float max[2], sum[2];
    int position[2];  // of the two rows of this lane
    float scale;
    uint32_t queries;

    // Issues scores = queries * keys^T.
    __device__ __forceinline__ void issue_scores(float (&s)[kKeys / 2], uint32_t keys) const {
#pragma unroll
        for (int k = 0; k < D / 16; ++k) {
            const uint64_t a = wgmma_descriptor(queries + k / 4 * kWgmmaRows * 128) + k % 4 * 2;
            const uint64_t b = wgmma_descriptor(keys + k / 4 * kKeys * 128) + k % 4 * 2;
            ScoreProduct<T, kKeys>::run(s, a, b, k > 0);
        }
    }

    // Issues out += weights * values.
    __device__ __forceinline__ void issue_values(uint32_t values) {
#pragma unroll
        for (int k = 0; k < kKeys / 16; ++k) {
            ValueProduct<T, D>::run(out, weights[k],
                                    wgmma_row_descriptor(values + k * kBoxBytes, kKeys * 128));
        }
    }

    // Keys behind a row's own position do not count.
    __device__ __forceinline__ void mask(float (&s)[kKeys / 2], int first_key) const {
#pragma unroll
        for (int i = 0; i < kKeys / 2; ++i) {
            const int key = first_key + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
            if (key > position[i / 2 % 2]) s[i] = -INFINITY;
        }
    }

    // Scores to weights, still in `s`; returns what the outputs before are to be multiplied with.
    __device__ __forceinline__ float2 softmax(float (&s)[kKeys / 2]) {
        float keep[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float top = s[2 * h];
#pragma unroll
            for (int i = 0; i < kKeys / 8; ++i)
                top = fmaxf(top, fmaxf(s[4 * i + 2 * h], s[4 * i + 2 * h + 1]));
            top = fmaxf(max[h], quad_max(top) * scale);
            const float base = top == -INFINITY ? 0.0f : top;  // a row that sees nothing yet
            keep[h] = exp2_fast(max[h] - base);
            max[h] = top;
            float total = 0;
#pragma unroll
            for (int i = 0; i < kKeys / 8; ++i) {
#pragma unroll
                for (int c = 4 * i + 2 * h; c < 4 * i + 2 * h + 2; ++c) {
                    s[c] = exp2_fast(fmaf(s[c], scale, -base));
                    total += s[c];
                }
            }
            sum[h] = sum[h] * keep[h] + total;
        }
        return make_float2(keep[0], keep[1]);
    }

    __device__ __forceinline__ void keep_weights(const float (&s)[kKeys / 2]) {
#pragma unroll
        for (int k = 0; k < kKeys / 16; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i) weights[k][i] = pack2<T>(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
    }

    __device__ __forceinline__ void rescale(float2 keep) {
#pragma unroll
        for (int i = 0; i < D / 2; ++i) out[i] *= i / 2 % 2 ? keep.y : keep.x;
    }
};

// Accumulators are not read before the wait in front of this.
template <int N>
__device__ __forceinline__ void keep_in_registers(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

template <int Barrier>
__device__ __forceinline__ void group_sync(int group) {
    asm volatile("bar.sync %0, 128;" ::"r"(Barrier + group) : "memory");
}

template <typename T, int D>
__global__ void __launch_bounds__(kWgmmaThreads, 1)
    prefill_sm90_kernel(const __grid_constant__ CUtensorMap k_map, const __grid_constant__ CUtensorMap v_map,
                        const __grid_constant__ AttentionParams p) {
    constexpr int kKeys = kWgmmaKeys<D>, kTileBytes = kKeys * 128 * kChunks<D>;
    extern __shared__ uint8_t smem_raw[];
    __shared__ __align__(8) uint64_t k_full[kWgmmaStages], v_full[kWgmmaStages], k_empty[kWgmmaStages],
        v_empty[kWgmmaStages];
    const uint32_t queries = (smem_ptr(smem_raw) + 1023) & ~1023u;
    const uint32_t k_ring = queries + kWgmmaRows * 128 * kChunks<D>,
                   v_ring = k_ring + kWgmmaStages * kTileBytes;
    const int group = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
    if (threadIdx.x < kWgmmaStages) {
        mbarrier_init(smem_ptr(&k_full[threadIdx.x]), 1);
        mbarrier_init(smem_ptr(&v_full[threadIdx.x]), 1);
        mbarrier_init(smem_ptr(&k_empty[threadIdx.x]), 4 * kWgmmaGroups);
        mbarrier_init(smem_ptr(&v_empty[threadIdx.x]), 4 * kWgmmaGroups);
        mbarrier_init_fence();
    }
    __syncthreads();
    const PrefillItem item = p.work.prefill[blockIdx.y];  // staged long before the preceding kernel
    pdl_wait();
    pdl_launch_dependents();
    const int kv_head = blockIdx.x;

    if (group == kWgmmaGroups) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
        if (threadIdx.x / 32 == 4 * kWgmmaGroups)
            load_tiles<T, D>(&k_map, &v_map, p, item, kv_head, k_ring, v_ring, k_full, v_full, k_empty,
                             v_empty);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
        const int thread = threadIdx.x % 128, lane = thread % 32;
        const uint32_t own = queries + group * 64 * 128;
        const int first_row = item.first_row + group * 64;
        for (int c = thread; c < 64 * kChunks<D> * 8; c += 128) {
            const int r = c / (kChunks<D> * 8), piece = c % (kChunks<D> * 8), row = first_row + r;
            const bool valid = row < item.n_rows && piece < D / 8;
            const int token = valid ? row / p.group_size : 0;
            const int head = kv_head * p.group_size + (valid ? row - token * p.group_size : 0);
            const T* from =
                static_cast<const T*>(p.q) + (item.token + token) * p.q_stride + (int64_t)head * D;
            copy16_async(own + piece / 8 * kWgmmaRows * 128 + swizzled(r, piece % 8),
                         from + (valid ? piece * 8 : 0), valid);
        }
        copy_commit();

        RowTile<T, D> tile;
        tile.queries = own;
        tile.scale = p.scale;
        tile.max[0] = tile.max[1] = -INFINITY;
        tile.sum[0] = tile.sum[1] = 0;
#pragma unroll
        for (int i = 0; i < D / 2; ++i) tile.out[i] = 0;
        const int lane_row = thread / 32 * 16 + lane / 4;
#pragma unroll
        for (int h = 0; h < 2; ++h)
            tile.position[h] = item.first_position + (first_row + lane_row + 8 * h) / p.group_size;
        const int lowest = item.first_position + first_row / p.group_size;

        copy_wait<0>();
        async_proxy_fence();
        group_sync<1>(group);

        // The two warpgroups take turns: barrier 3 + group says that it is this group's.
        const auto my_turn = [&] { asm volatile("bar.sync %0, 256;" ::"r"(3 + group) : "memory"); };
        const auto your_turn = [&] { asm volatile("bar.arrive %0, 256;" ::"r"(4 - group) : "memory"); };
        const auto release = [&](uint64_t* empty, int slot) {
            if (lane == 0) mbarrier_arrive(smem_ptr(&empty[slot]));
        };
        if (group == 1) your_turn();

        int t = (item.end_key - 1) / kKeys;
        RingPosition at;
        float s[kKeys / 2];
        mbarrier_wait(smem_ptr(&k_full[0]), 0);
        my_turn();
        wgmma_fence();
        tile.issue_scores(s, k_ring);
        wgmma_commit();
        your_turn();
        wgmma_wait<0>();
        keep_in_registers(s);
        release(k_empty, 0);
        tile.mask(s, t * kKeys);
        tile.softmax(s);
        tile.keep_weights(s);

        const auto step = [&](bool masked) {
            const RingPosition before = at;
            at.advance(kWgmmaStages);
            mbarrier_wait(smem_ptr(&k_full[at.slot]), at.parity);
            my_turn();
            wgmma_fence();
            tile.issue_scores(s, k_ring + at.slot * kTileBytes);
            wgmma_commit();
            mbarrier_wait(smem_ptr(&v_full[before.slot]), before.parity);
            wgmma_fence();
            tile.issue_values(v_ring + before.slot * kTileBytes);
            wgmma_commit();
            your_turn();
            wgmma_wait<1>();
            keep_in_registers(s);
            release(k_empty, at.slot);
            if (masked) tile.mask(s, t * kKeys);
            const float2 keep = tile.softmax(s);
            wgmma_wait<0>();
            keep_in_registers(tile.out);
            release(v_empty, before.slot);
            tile.rescale(keep);
            tile.keep_weights(s);
        };
        for (--t; t >= 0 && (t + 1) * kKeys > lowest + 1; --t) step(true);
        for (; t >= 0; --t) step(false);

        mbarrier_wait(smem_ptr(&v_full[at.slot]), at.parity);
        wgmma_fence();
        tile.issue_values(v_ring + at.slot * kTileBytes);
        wgmma_commit();
        wgmma_wait<0>();
        keep_in_registers(tile.out);

        // Through shared memory, where the queries were, to whole rows.
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float inverse = 1.0f / quad_sum(tile.sum[h]);
#pragma unroll
            for (int i = 0; i < D / 8; ++i) {
                const uint32_t address =
                    own + i / 8 * kWgmmaRows * 128 + swizzled(lane_row + 8 * h, i % 8) + lane % 4 * 4;
                const uint32_t v =
                    pack2<T>(tile.out[4 * i + 2 * h] * inverse, tile.out[4 * i + 2 * h + 1] * inverse);
                asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(v) : "memory");
            }
        }
        __syncwarp();  // a warp's rows are its own
        for (int c = lane; c < 16 * (D / 8); c += 32) {
            const int r = thread / 32 * 16 + c / (D / 8), piece = c % (D / 8), row = first_row + r;
            if (row >= item.n_rows) continue;
            const int token = row / p.group_size, head = kv_head * p.group_size + row - token * p.group_size;
            uint4 u;
            asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(u.x), "=r"(u.y), "=r"(u.z), "=r"(u.w)
                         : "r"(own + piece / 8 * kWgmmaRows * 128 + swizzled(r, piece % 8)));
            *reinterpret_cast<uint4*>(static_cast<T*>(p.y) + (item.token + token) * p.y_stride +
                                      (int64_t)head * D + piece * 8) = u;
        }
    }
}

}  // namespace rvllm::cuda
