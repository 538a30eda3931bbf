// decode_attention_kernel: one query per sequence, split-KV (flash decoding), heads of a group as columns of
// mma: scores^T[keys, heads] = keys * queries^T, out^T[D, heads] = values^T * weights^T.
//
// A team of 1, 2 or 4 warps takes (split, tile of heads) pairs in turn. Each warp streams every n-th granule
// of 16 keys through a ring of its own, which runs ahead into the next pairs while one is finished
// (merge.cuh), and starts before the preceding kernel has ended: only the granule with the step's own key
// waits for it.
#pragma once
#include <climits>

#include "attention/merge.cuh"
#include "attention/tile.cuh"
#include "device/l2_policy.cuh"
#include "device/pdl.cuh"

namespace rvllm::cuda {

template <int D>
constexpr int kDecodeStages = decode_stages(kArch, D);
template <int D>
constexpr int kDecodeMinCtas = decode_ctas(D);

__device__ __forceinline__ int granules_of(const DecodeItem& item) {
    return (item.end_key - item.first_key + kGranule - 1) / kGranule;
}

// Walks through the granules that a warp loads, of all pairs of its team. What the next pair needs is fetched
// while this one's granules are loaded.
class DecodeCursor {
public:
    // Before the first granule.
    __device__ __forceinline__ DecodeCursor(const AttentionParams& p, const DecodeTeam& team)
        : p_(p), team_(team), ahead_(team) {
        fetch();
    }

    __device__ __forceinline__ bool done() const { return work_ >= team_.n_work; }

    // Row of the cache's [block][head][key] where the granule begins, and how many of its keys count.
    __device__ __forceinline__ int row() const { return __shfl_sync(0xffffffff, row_, i_ - first_); }
    __device__ __forceinline__ int n_valid() const { return n_keys_ - key(i_); }

    __device__ __forceinline__ void advance() {
        if (++i_ < end_) return;
        row_ = far_row_;
        first_ = i_;
        int n_rows = 32;
        if (i_ >= n_) {
            take();
            n_rows = kItemRows >> team_.log_warps;
        }
        end_ = min(n_, first_ + n_rows);
        far_row_ = look_up(first_ + n_rows);
    }

private:
    __device__ __forceinline__ int key(int i) const { return (team_.rank + i * team_.n_warps) * kGranule; }
    // To the next pair where this warp has a granule.
    __device__ __forceinline__ void take() {
        do {
            work_ = ahead_.work;
            ahead_ = ahead_.next();
            item_ = next_;
            n_keys_ = item_.end_key - item_.first_key;
            n_ = (granules_of(item_) - team_.rank + team_.n_warps - 1) >> team_.log_warps;
            head_row_ = DecodePair(p_, work_).kv_head * p_.block_size;
            row_ = next_row_ + head_row_;
            fetch();
        } while (n_ <= 0 && !done());
        first_ = i_ = 0;
        if (done()) n_ = INT_MAX;
    }
    __device__ __forceinline__ void fetch() {
        const int i = item_of(p_, ahead_.work), row = min(key(threadIdx.x % 32) / kGranule, kItemRows - 1);
        next_ = load_item(p_.work, i);
        next_row_ = __ldcg(p_.work.decode_rows + i * kItemRows + row);
    }
    // Lane l: of granule i + l.
    __device__ __forceinline__ int look_up(int i) const {
        const int at = item_.first_key + key(i + threadIdx.x % 32);
        if (at >= item_.end_key) return 0;
        const int i_block = p_.block_keys.quotient(at);
        const int block = __ldcg(p_.table_blocks + item_.table_start + i_block);
        return (block * p_.n_kv_heads - i_block) * p_.block_size + at + head_row_;
    }

    const AttentionParams& p_;
    const DecodeTeam& team_;
    DecodeTurn ahead_;  // of the next pair
    int work_;
    int i_ = 0, n_ = 0, end_ = 0;  // this warp's granules; the rows of those before end_ are at hand
    int first_, row_, far_row_ = 0, next_row_;  // lane l: of first_ + l; behind them; of the next pair
    int head_row_, n_keys_;
    DecodeItem item_, next_;
};

template <typename T, int D, int Heads>
__device__ __forceinline__ void decode_items(const AttentionParams& p, uint8_t* smem) {
    constexpr int kStages = kDecodeStages<D>, kSteps = D / 16, kSideBytes = kGranule * kRowBytes<D>;
    constexpr int kTiles = Heads / 8;
    __shared__ DecodeMerge merge;
    const AttentionWork& w = p.work;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const DecodeTeam team(p);
    pdl_launch_dependents();
    DecodeTurn turn(team);
    DecodeCursor ahead(p, team);
    DecodeItem item = load_item(w, item_of(p, turn.work));
    if (turn.work >= team.n_work) {
        if (turn.work == 0 || p.follows_prefill) pdl_wait();
        return;
    }

    const uint32_t ring = smem_ptr(smem) + warp * kStages * 2 * kSideBytes;
    // Offsets that a lane gives to ldmatrix: keys as A, values^T as A (transposed on load).
    const uint32_t key_at = ring + lane % 16 * kRowBytes<D> + lane / 16 * 16;
    const uint32_t value_at =
        ring + kSideBytes + (lane % 8 + lane / 16 * 8) * kRowBytes<D> + lane / 8 % 2 * 16;
    const uint64_t policy = policy_evict_first();
    bool waited = p.follows_prefill;
    int load_slot = 0;
    const auto load = [&] {
        ahead.advance();
        if (!ahead.done()) {
            const int n_valid = ahead.n_valid();
            if (!waited && n_valid <= kGranule) {  // may be the step's own key
                pdl_wait();
                waited = true;
            }
            const int64_t at = (int64_t)ahead.row() * D;
            const uint32_t to = ring + load_slot * 2 * kSideBytes;
            const T *k = static_cast<const T*>(p.k) + at, *v = static_cast<const T*>(p.v) + at;
            load_rows<T, D, kGranule>(to, k, n_valid, policy);
            load_rows<T, D, kGranule>(to + kSideBytes, v, n_valid, policy);
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
    while (turn.work < team.n_work) {
        const int work = turn.work;
        turn = turn.next();
        const DecodeItem next = load_item(w, item_of(p, turn.work));
        const int n_keys = item.end_key - item.first_key, n_granules = granules_of(item);
        float out[kTiles][D / 16][4] = {};
        float top[kTiles][2], sum[kTiles][2] = {};  // of two heads; sum: of this lane's keys
#pragma unroll
        for (int t = 0; t < kTiles; ++t) top[t][0] = top[t][1] = -INFINITY;
        for (int i = team.rank - n_before * team.n_warps; i < n_granules; i += team.n_warps) {
            load();
            if (i < 0) continue;
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
        if (turn.work < team.n_work) load_query(item, turn.work);
        has_query = true;
        // The slot behind this warp's last granule is free: the next load goes there.
        finish_item<T, D, Heads>(p, team, current, DecodePair(p, work), out, top, sum, smem,
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
