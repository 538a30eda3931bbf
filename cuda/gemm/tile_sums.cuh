// The products of a tile of 128 weight rows and Tokens tokens by eight warps of mma.sync, and their exchange
// where several CTAs share the K of a tile.
//
// A row's sums are added up in the order of K whatever Tokens is, parts in the order of K too. The parts are
// added up by the CTA that arrives last; where all CTAs of a tile end together, each waits for the others
// and takes its share.
#pragma once
#include "device/mma.cuh"
#include "gemm/epilogue.cuh"
#include "gemm/tile_ring.cuh"

namespace rvllm::cuda {

template <typename T, int Tokens>
class TileSums {
public:
    __device__ __forceinline__ TileSums() : lane_(threadIdx.x % 32) {
        const int warp = threadIdx.x / 32;
        row_ = warp % kRowWarps * kWarpRows;
        token_ = warp / kRowWarps * kWarpTokens;
        row_at_ = piece_at(0, row_ + lane_ % 16, lane_ / 16);
        token_at_ =
            kTileBytes + (kTokenTiles == 1 ? piece_at(0, token_ + lane_ % 8, lane_ / 8)
                                           : piece_at(0, token_ + lane_ / 16 * 8 + lane_ % 8, lane_ / 8 % 2));
    }

    __device__ __forceinline__ void clear() {
        each_tile([](int, float (&v)[4]) { v[0] = v[1] = v[2] = v[3] = 0; });
    }

    // Fetches what the first products of the ring's first chunk need.
    template <typename Ring>
    __device__ __forceinline__ void begin(const Ring& ring) {
        if (kAhead) load(fragments_[0], ring.slot(), 0);
    }

    // Adds the products of the chunk that has arrived, while later ones are sent on their way. Waits for the
    // next one.
    template <typename Ring>
    __device__ __forceinline__ void add(Ring& ring) {
        if (!kAhead) {
#pragma unroll
            for (int k = 0; k + 1 < kTileSteps; ++k) ring.refill(k);
            load(fragments_[0], ring.slot(), 0);
        }
#pragma unroll
        for (int k = 0; k < kTileSteps; ++k) {
            if (k + 1 < kTileSteps) {
                load(fragments_[(k + 1) % 2], ring.slot(), k + 1);
                if (kAhead) ring.refill(k);
            } else if (kAhead) {
                ring.next();
                load(fragments_[0], ring.slot(), 0);  // stale after the last chunk, and not used
            }
            const Fragments& f = fragments_[k % 2];
#pragma unroll
            for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
                for (int j = 0; j < kTokenTiles; ++j) mma_k16<T>(acc_[r][j], f.a[r], f.b[j][0], f.b[j][1]);
        }
        if (!kAhead) ring.next();
    }

    // Hands the sums of a part over. True: this CTA has something to finish, with the sums of all parts.
    __device__ __forceinline__ bool join(const LinearParams& p, const TileSegment& s, const TileParts& parts,
                                         bool together) {
        n_shares_ = together ? parts.n : 1;
        share_ = together ? blockIdx.x - parts.first_cta : 0;
        const int part = blockIdx.x - parts.first_cta, n = tiles_below(p.m - s.token0);
        float4* mine = place(p, parts, part);
        each_tile([&](int i, float (&v)[4]) {
            if (i % kTokenTiles < n) __stcg(mine + i * kTileThreads, make_float4(v[0], v[1], v[2], v[3]));
        });
        __syncthreads();
        int goes_on = 0;
        if (threadIdx.x == 0) {
            int32_t* flag = p.flags + parts.first_cta;
            goes_on = together ? wait_for_all(flag, parts.n) : is_last(flag, parts.n);
        }
        if (!__syncthreads_or(goes_on)) return false;
        clear();
#pragma unroll 4
        for (int q = 0; q < parts.n; ++q) {
            const float4* theirs = place(p, parts, q);
            each_share([&](int i, float (&v)[4]) {
                if (i % kTokenTiles >= n) return;
                const float4 u = __ldcg(theirs + i * kTileThreads);
                v[0] += u.x;
                v[1] += u.y;
                v[2] += u.z;
                v[3] += u.w;
            });
        }
        return true;
    }

    __device__ __forceinline__ void take_all() {
        n_shares_ = 1;
        share_ = 0;
    }

    // Writes y; `stage` is a slot that everybody has read.
    __device__ __forceinline__ void finish(const LinearParams& p, const TileSegment& s, uint8_t* stage) {
        constexpr int kTokens = kGroupTiles * 8, kStride = 20;  // floats between tokens of 16 rows
        const bool pairs = p.act == Act::silu_mul;
        const int units = pairs ? 2 : 4;  // per token
        const int unit_at = unit_row(p.act, lane_ % units);
        float* turned = reinterpret_cast<float*>(stage) + threadIdx.x / 32 * (kTokens * kStride);
        int share = 0;
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
            const UnitEpilogue<T> unit(p, s.block, (row_ / 16 + r) * units + lane_ % units);
#pragma unroll
            for (int j = 0; j < kTokenTiles; j += kGroupTiles) {
                const int token0 = s.token0 + token_ + j * 8;
                const bool mine = share == share_;
                if (++share == n_shares_) share = 0;
                if (!mine || token0 >= p.m) continue;
                __syncwarp();
#pragma unroll
                for (int e = 0; e < kGroupTiles * 4; ++e)
                    turned[(e / 4 * 8 + lane_ % 4 * 2 + e % 2) * kStride + lane_ / 4 + e % 4 / 2 * 8] =
                        acc_[r][j + e / 4][e % 4];
                __syncwarp();
                for (int t = lane_ / units; t < kTokens && token0 + t < p.m; t += 32 / units) {
                    const float* sums = turned + t * kStride + unit_at;
                    unit.finish(token0 + t, *reinterpret_cast<const float4*>(sums),
                                *reinterpret_cast<const float4*>(sums + (pairs ? 8 : 0)));
                }
            }
        }
        __syncthreads();  // the slot is given back
    }

private:
    static constexpr int kWarpRows = Tokens <= 32 ? 16 : Tokens == 64 ? 32 : 64;
    static constexpr int kRowWarps = kBlockRows / kWarpRows;
    static constexpr int kWarpTokens = Tokens * kRowWarps / 8;
    static constexpr int kRowTiles = kWarpRows / 16, kTokenTiles = kWarpTokens / 8;
    static constexpr int kTiles = kRowTiles * kTokenTiles;
    static constexpr int kGroupTiles = kTokenTiles == 1 ? 1 : 2;  // that are finished together
    static constexpr bool kAhead =
        Tokens <= 128;  // the next chunk's first fragments are fetched in time: registers
    static constexpr int kArrived = 1, kLeft = 1 << 16;  // counts in a flag

    struct Fragments {
        uint32_t a[kRowTiles][4], b[kTokenTiles][2];
    };

    __device__ __forceinline__ void load(Fragments& f, uint32_t slot, int k) const {
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) ldmatrix4(f.a[r], slot + (row_at_ ^ k * 32) + r * 16 * 128);
        uint32_t b[4];
        if constexpr (kTokenTiles == 1) {
            ldmatrix4(b, slot + (token_at_ ^ k / 2 * 64));
            f.b[0][0] = b[k % 2 * 2];
            f.b[0][1] = b[k % 2 * 2 + 1];
        } else {
#pragma unroll
            for (int j = 0; j < kTokenTiles; j += 2) {
                ldmatrix4(b, slot + (token_at_ ^ k * 32) + j * 8 * 128);
                f.b[j][0] = b[0];
                f.b[j][1] = b[1];
                f.b[j + 1][0] = b[2];
                f.b[j + 1][1] = b[3];
            }
        }
    }

    // Counts this CTA; true: the others have been here.
    static __device__ __forceinline__ bool is_last(int32_t* flag, int n_parts) {
        if (add_in_order(flag, kArrived) != n_parts - 1) return false;
        *flag = 0;
        return true;
    }

    // Counts this CTA and waits for the others, if there is a share for it.
    __device__ __forceinline__ bool wait_for_all(int32_t* flag, int n_parts) const {
        const bool leaves = share_ >= kTiles / kGroupTiles;
        add_in_order(flag, leaves ? kArrived + kLeft : kArrived);
        if (leaves) return false;
        int32_t seen;
        do {
            asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(flag) : "memory");
        } while (seen % kLeft < n_parts);
        if (add_in_order(flag, kLeft) / kLeft == n_parts - 1) *flag = 0;
        return true;
    }

    // What this CTA wrote is seen by who sees the sum, and the other way around.
    static __device__ __forceinline__ int32_t add_in_order(int32_t* flag, int32_t value) {
        int32_t before;
        asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], %2;"
                     : "=r"(before)
                     : "l"(flag), "r"(value)
                     : "memory");
        return before;
    }

    // Of this warp's tiles of eight tokens, those with one of the first n tokens.
    __device__ __forceinline__ int tiles_below(int n) const { return (n - token_ + 7) / 8; }

    // Calls f(i, sums) for the tiles of 16 rows and 8 tokens.
    template <typename F>
    __device__ __forceinline__ void each_tile(const F& f) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) f(i, acc_[i / kTokenTiles][i % kTokenTiles]);
    }
    // For those that this CTA finishes.
    template <typename F>
    __device__ __forceinline__ void each_share(const F& f) {
        int share = 0;
#pragma unroll
        for (int i = 0; i < kTiles; i += kGroupTiles) {
            if (share == share_) {
#pragma unroll
                for (int t = i; t < i + kGroupTiles; ++t) f(t, acc_[t / kTokenTiles][t % kTokenTiles]);
            }
            if (++share == n_shares_) share = 0;
        }
    }

    // Two places per CTA: for the end of a tile it starts with and for the beginning of one it ends with.
    static __device__ __forceinline__ float4* place(const LinearParams& p, const TileParts& parts, int part) {
        const size_t at = 2 * (parts.first_cta + part) + (part == 0);
        return static_cast<float4*>(p.workspace) + at * (Tokens * kBlockRows / 4) + threadIdx.x;
    }

    Fragments fragments_[2];  // of two steps along K
    float acc_[kRowTiles][kTokenTiles][4];
    int lane_, row_, token_;
    uint32_t row_at_, token_at_;  // in a slot: what this lane hands to ldmatrix, step 0; XOR moves along K
    int n_shares_, share_;        // of the tile's sums; this CTA's
};

}  // namespace rvllm::cuda
