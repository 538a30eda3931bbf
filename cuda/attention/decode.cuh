// decode_attention_kernel: one query per sequence, split-KV (flash decoding), heads of a group as columns of
// mma: scores^T[keys, heads] = keys * queries^T, out^T[D, heads] = values^T * weights^T.
//
// A CTA takes (split, tile of heads) pairs in turn. Each of its warps streams every n-th granule of 16 keys
// through a ring of its own, which runs ahead into the next pairs while one is finished (merge.cuh), and
// starts before the preceding kernel has ended: only the granule with the step's own key waits for it.
#pragma once
#include "attention/merge.cuh"
#include "attention/tile.cuh"
#include "device/pdl.cuh"

namespace rvllm::cuda {

template <int D>
constexpr int kDecodeStages = decode_stages(kArch, D);
template <int D>
constexpr int kDecodeMinCtas = decode_ctas(D);

__device__ __forceinline__ int granules_of(const DecodeItem& item) {
    return (item.end_key - item.first_key + kGranule - 1) / kGranule;
}

// Walks through the granules that a warp loads, of all pairs of its CTA. What the next pairs need is fetched
// while this one's granules are loaded.
class DecodeCursor {
public:
    __device__ __forceinline__ DecodeCursor(const AttentionParams& p, int n_work)
        : p_(p), n_work_(n_work), work_((int)blockIdx.x - (int)gridDim.x) {
        next_ = item_at(blockIdx.x);
        later_ = item_at(blockIdx.x + gridDim.x);
        next_row_ = row_of(next_, blockIdx.x, 0);
        move();
    }

    __device__ __forceinline__ bool done() const { return work_ >= n_work_; }

    // Row of the cache's [block][head][key] where the granule begins, and how many of its keys count.
    __device__ __forceinline__ int row() const { return __shfl_sync(0xffffffff, row_, i_ % 32); }
    __device__ __forceinline__ int n_valid() const { return item_.end_key - item_.first_key - key(i_); }
    // Whether the step's own key is among them.
    __device__ __forceinline__ bool is_new() const {
        return item_.split == item_.n_splits - 1 && n_valid() <= kGranule;
    }

    __device__ __forceinline__ void advance() {
        if (++i_ == n_) {
            move();
        } else if (i_ % 32 == 0) {
            row_ = row_of(item_, work_, i_);
        }
    }

private:
    __device__ __forceinline__ static int key(int i) {
        return (threadIdx.x / 32 + i * kDecodeWarps) * kGranule;
    }
    __device__ __forceinline__ DecodeItem item_at(int work) const {
        return load_item(p_.work, p_.units.quotient(min(work, n_work_ - 1)));
    }
    // Lane l: of granule i + l.
    __device__ __forceinline__ int row_of(const DecodeItem& item, int work, int i) const {
        const int at = item.first_key + key(i + threadIdx.x % 32);
        if (at >= item.end_key) return 0;
        const int i_block = p_.block_keys.quotient(at);
        const int block = __ldcg(p_.table_blocks + item.table_start + i_block);
        const int i_head = block * p_.n_kv_heads + DecodePair(p_, work).kv_head;
        return (i_head - i_block) * p_.block_size + at;
    }
    __device__ __forceinline__ void open() {
        i_ = 0;
        n_ = (granules_of(item_) - (int)(threadIdx.x / 32) + kDecodeWarps - 1) / kDecodeWarps;
        next_row_ = row_of(next_, work_ + gridDim.x, 0);
        later_ = item_at(work_ + 2 * gridDim.x);
    }
    // To the next pair where this warp has a granule.
    __device__ __forceinline__ void move() {
        do {
            work_ += gridDim.x;
            item_ = next_;
            row_ = next_row_;
            next_ = later_;
            open();
        } while (n_ <= 0 && !done());
    }

    const AttentionParams& p_;
    int n_work_, work_, i_, n_, row_, next_row_;
    DecodeItem item_, next_, later_;
};

template <typename T, int D, int Heads>
__device__ __forceinline__ void decode_items(const AttentionParams& p, uint8_t* smem) {
    constexpr int kStages = kDecodeStages<D>, kSteps = D / 16, kSideBytes = kGranule * kRowBytes<D>;
    constexpr int kTiles = Heads / 8;
    __shared__ DecodeMerge merge;
    const AttentionWork& w = p.work;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int n_work = __ldcg(w.header) * p.units.n;  // staged long before the preceding kernel
    pdl_launch_dependents();
    if ((int)blockIdx.x >= n_work) {
        if (blockIdx.x == 0 || p.follows_prefill) pdl_wait();
        return;
    }

    const uint32_t ring = smem_ptr(smem) + warp * kStages * 2 * kSideBytes;
    // Offsets that a lane gives to ldmatrix: keys as A, values^T as A (transposed on load).
    const uint32_t key_at = ring + lane % 16 * kRowBytes<D> + lane / 16 * 16;
    const uint32_t value_at =
        ring + kSideBytes + (lane % 8 + lane / 16 * 8) * kRowBytes<D> + lane / 8 % 2 * 16;
    DecodeCursor ahead(p, n_work);
    bool waited = p.follows_prefill;
    int load_slot = 0;
    const auto load = [&] {
        if (!ahead.done()) {
            if (!waited && ahead.is_new()) {
                pdl_wait();
                waited = true;
            }
            const int64_t at = (int64_t)ahead.row() * D;
            const uint32_t to = ring + load_slot * 2 * kSideBytes;
            const T *k = static_cast<const T*>(p.k) + at, *v = static_cast<const T*>(p.v) + at;
            const int n_valid = ahead.n_valid();
            if (n_valid >= kGranule) {
                load_rows<T, D, kGranule>(to, k);
                load_rows<T, D, kGranule>(to + kSideBytes, v);
            } else {
                load_rows<T, D, kGranule>(to, k, n_valid);
                load_rows<T, D, kGranule>(to + kSideBytes, v, n_valid);
            }
            ahead.advance();
        }
        copy_commit();
        load_slot = load_slot + 1 == kStages ? 0 : load_slot + 1;
    };

    uint32_t q[kTiles][kSteps][2];  // B fragments: column = head
    const auto load_query = [&](const DecodeItem& item, int work) {
        const DecodePair pair(p, work);
        const int head = pair.kv_head * p.group_size + pair.tile * Heads;
        const T* query = static_cast<const T*>(p.q) + item.token * p.q_stride + (int64_t)head * D;
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
            const int column = t * 8 + lane / 4;
            const bool valid = pair.tile * Heads + column < p.group_size;
#pragma unroll
            for (int i = 0; i < 2 * kSteps; ++i) {
                const T* from = query + column * D + i * 8 + lane % 4 * 2;
                q[t][i / 2][i % 2] = valid ? __ldcg(reinterpret_cast<const unsigned*>(from)) : 0;
            }
        }
    };

    const auto wait = [&] {
        if (!waited) pdl_wait();
        waited = true;
    };
    // Before its first granule a warp only fills its ring. There is one place each where things are done:
    // instructions that no cache holds are fetched at about 8 cycles apiece.
    int slot = 0, n_before = kStages - 1;
    bool has_query = false;
    DecodeItem item = load_item(w, p.units.quotient(blockIdx.x));
    for (int work = blockIdx.x; work < n_work; work += gridDim.x) {
        const DecodeItem next = load_item(w, p.units.quotient(min(work + (int)gridDim.x, n_work - 1)));
        const int n_keys = item.end_key - item.first_key, n_granules = granules_of(item);
        float out[kTiles][D / 16][4] = {};
        float top[kTiles][2], sum[kTiles][2] = {};  // of two heads; sum: of this lane's keys
#pragma unroll
        for (int t = 0; t < kTiles; ++t) top[t][0] = top[t][1] = -INFINITY;
        for (int i = warp - n_before * kDecodeWarps; i < n_granules; i += kDecodeWarps) {
            load();
            if (i < warp) continue;
            if (!has_query) {
                wait();
                load_query(item, work);
                has_query = true;
            }
            copy_wait<kStages - 1>();
            __syncwarp();
            const uint32_t offset = slot * 2 * kSideBytes;
            slot = slot + 1 == kStages ? 0 : slot + 1;
            float s[kTiles][2][4] = {};  // two sums, so that products wait less for each other
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                uint32_t a[4];
                ldmatrix4(a, key_at + offset + k * 32);
#pragma unroll
                for (int t = 0; t < kTiles; ++t) mma_k16<T>(s[t][k % 2], a, q[t][k][0], q[t][k][1]);
            }
            uint32_t b[kTiles][2];
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                float keep[2];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    s[t][0][j] += s[t][1][j];
                    if (i * kGranule + lane / 4 + j / 2 * 8 >= n_keys) s[t][0][j] = -INFINITY;
                }
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    float& lo = s[t][0][c];
                    float& hi = s[t][0][2 + c];
                    const float now = fmaxf(top[t][c], column_max(fmaxf(lo, hi)) * p.scale);
                    keep[c] = exp2_fast(top[t][c] - now);
                    top[t][c] = now;
                    lo = exp2_fast(fmaf(lo, p.scale, -now));
                    hi = exp2_fast(fmaf(hi, p.scale, -now));
                    sum[t][c] = fmaf(sum[t][c], keep[c], lo + hi);
                }
                b[t][0] = transpose8(pack2<T>(s[t][0][0], s[t][0][1]));
                b[t][1] = transpose8(pack2<T>(s[t][0][2], s[t][0][3]));
#pragma unroll
                for (int d = 0; d < D / 16; ++d)
#pragma unroll
                    for (int j = 0; j < 4; ++j) out[t][d][j] *= keep[j % 2];
            }
#pragma unroll
            for (int d = 0; d < D / 16; ++d) {
                uint32_t a[4];
                ldmatrix4_trans(a, value_at + offset + d * 32);
#pragma unroll
                for (int t = 0; t < kTiles; ++t) mma_k16<T>(out[t][d], a, b[t][0], b[t][1]);
            }
            __syncwarp();
        }
        n_before = 0;
        wait();
        const DecodeItem current = item;
        item = next;
        if (work + (int)gridDim.x < n_work) load_query(item, work + gridDim.x);
        has_query = true;
        // The slot behind this warp's last granule is free: the next load goes there.
        finish_item<T, D, Heads>(p, current, DecodePair(p, work), out, top, sum, smem,
                                 (warp * kStages + load_slot) * 2 * kSideBytes, &merge);
    }
    copy_wait<0>();
    if (p.follows_prefill) pdl_wait();  // who waits for this kernel waits for both
}

template <typename T, int D, int Heads>
__global__ void __launch_bounds__(32 * kDecodeWarps, kDecodeMinCtas<D>)
    decode_attention_kernel(const __grid_constant__ AttentionParams p) {
    extern __shared__ __align__(16) uint8_t smem[];
    if constexpr (kHasProducts<T>) {
        decode_items<T, D, Heads>(p, smem);
    } else {
        __trap();  // find() refuses
    }
}

}  // namespace rvllm::cuda
