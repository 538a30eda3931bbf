// The end of a tile of linear_large_kernel: accumulator fragments become rows of y.
//
// Pieces of 32 tokens by the 64 rows of a warpgroup are turned around in shared memory by stmatrix and
// stored by the copy engine while the next pieces, or the next tile, are computed. A residual takes the
// same way in the other direction. Rows that are not aligned to 16 bytes are stored from the registers. Heads
// that are to be turned (Act::rope) are turned between shared memory and where they go.
#pragma once
#include "device/bulk.cuh"
#include "device/convert.cuh"
#include "device/mbarrier.cuh"
#include "device/mma.cuh"
#include "gemm/epilogue.cuh"
#include "gemm/layout.h"
#include "gemm/params.h"

namespace rvllm::cuda {

constexpr int kPieceTokens = 32;
constexpr int kPieceBytes = kPieceTokens * 128;
constexpr int kStagingBytes =
    4 * kPieceBytes;  // of a warpgroup: two pieces that are written, two that are stored

template <typename T>
class LargeEpilogue {
public:
    __device__ __forceinline__ LargeEpilogue(const LinearParams& p, bool staged, const CUtensorMap* y_map,
                                             uint32_t staging)
        : p_(p),
          staged_(staged),
          pairs_(p.act == Act::silu_mul),
          n_features_(pairs_ ? p.n / 2 : p.n),
          y_map_(y_map),
          staging_(staging) {}

    // Before the products of the 128 weight rows `block`: sums start with the bias, or with zero.
    template <int Tokens>
    __device__ __forceinline__ void begin(float (&acc)[Tokens / 2], int block, bool with_bias) {
        block_ = block;
        feature_ = (block * kBlockRows + threadIdx.x / 32 * 16) >> pairs_;
        float bias[2] = {};
        if (p_.bias && with_bias) {
            const int f = feature_ + threadIdx.x % 32 / 4, second = pairs_ ? n_features_ + f : f + 8;
            if (f < n_features_) bias[0] = p_.bias[f];
            if (f < n_features_ && second < p_.n) bias[1] = p_.bias[second];
        }
#pragma unroll
        for (int i = 0; i < Tokens / 2; ++i) acc[i] = bias[i / 2 % 2];
    }

    // The pieces [first, end) of the tokens from token0 on.
    // acc[4 * i + e]: row lane / 4 + e / 2 * 8 of the warp's 16, token 8 * i + lane % 4 * 2 + e % 2.
    template <int Tokens>
    __device__ __forceinline__ void finish(const float (&acc)[Tokens / 2], int token0, int first, int end) {
        end = min(end, (p_.m - token0 + kPieceTokens - 1) / kPieceTokens);
        if (p_.act == Act::rope) {
            turned<Tokens>(acc, token0, first, end);
        } else if (!staged_) {
            if (p_.out == DType::f32) {
                pairs_ ? direct<Tokens, float, true>(acc, token0, first, end)
                       : direct<Tokens, float, false>(acc, token0, first, end);
            } else {
                pairs_ ? direct<Tokens, T, true>(acc, token0, first, end)
                       : direct<Tokens, T, false>(acc, token0, first, end);
            }
        } else if (p_.out == DType::f32) {
            pairs_ ? staged_floats<Tokens, true>(acc, token0, first, end)
                   : staged_floats<Tokens, false>(acc, token0, first, end);
        } else if (p_.residual) {
            pairs_ ? staged<Tokens, true, true>(acc, token0, first, end)
                   : staged<Tokens, false, true>(acc, token0, first, end);
        } else {
            pairs_ ? staged<Tokens, true, false>(acc, token0, first, end)
                   : staged<Tokens, false, false>(acc, token0, first, end);
        }
    }

private:
    template <bool Pairs>
    static __device__ __forceinline__ float value(const float* acc, int e) {
        return Pairs ? silu(acc[e]) * acc[e + 2] : acc[e];
    }

    // Registers are numbered by the compiler, so every pair of pieces has code of its own: little of it, or
    // fetching instructions costs more than executing them.
    template <int Tokens, bool Pairs, bool Residual>
    __device__ __forceinline__ void staged(const float (&acc)[Tokens / 2], int token0, int first, int end) {
        constexpr int kPieces = Tokens / kPieceTokens;
        constexpr int kMatrices = Pairs ? 1 : 2;  // instructions of four 8 x 8 matrices per piece
        constexpr int kAhead = 4;                 // pieces whose residual is asked for before it is needed
        // Each lane addresses 16 bytes of a piece, eight features of one token, permuted as the tensor map
        // of y says; of the second instruction, 16 tokens further.
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
        const int token = Pairs ? lane : lane / 16 * 8 + lane % 8, eight = Pairs ? 0 : lane / 8 % 2;
        const uint32_t place = Pairs ? token * 64 + (warp ^ (token / 2 % 4)) * 16
                                     : token * 128 + ((warp * 2 + eight) ^ (token % 8)) * 16;
        uint4 residual[kAhead][kMatrices];
        const T* from = static_cast<const T*>(p_.residual);
        int n_rows = 0;  // from this lane's first token on
        if (Residual) {
            const int f = feature_ + eight * 8;
            from += (token0 + token) * p_.residual_stride + f;
            n_rows = f < n_features_ ? p_.m - token0 - token : 0;
        }
        auto fetch = [&](int q) {
#pragma unroll
            for (int h = 0; h < kMatrices; ++h) {
                const int row = q * kPieceTokens + h * 16;
                uint4& r = residual[q % kAhead][h];
                r = make_uint4(0, 0, 0, 0);
                if (q >= first && q < end && row < n_rows)
                    r = *reinterpret_cast<const uint4*>(from + row * p_.residual_stride);
            }
        };
        if (Residual) {
#pragma unroll
            for (int q = 0; q < kAhead; ++q) fetch(q);
        }
#pragma unroll
        for (int q0 = 0; q0 < kPieces; q0 += 2) {
            const bool low = q0 >= first && q0 < end, high = q0 + 1 >= first && q0 + 1 < end;
            if (low || high) {
                const uint32_t pair = staging_ + turn_;
#pragma unroll
                for (int q = q0; q < q0 + 2; ++q)
#pragma unroll
                    for (int h = 0; h < kMatrices; ++h) {
                        const uint32_t address = pair + place + q % 2 * kPieceBytes + h * (kPieceBytes / 2);
                        uint32_t add[4], u[4];
                        if (Residual) {
                            shared_store(address, residual[q % kAhead][h]);
                            __syncwarp();
                            ldmatrix4_trans(add, address);
                        }
#pragma unroll
                        for (int j = 0; j < 4; ++j) {
                            // Matrix j is of tokens 8 * j, or of tokens 16 * h + j / 2 * 8 and rows j % 2
                            // * 8.
                            const float* a = acc + q * 16 + (Pairs ? j : 2 * h + j / 2) * 4;
                            const int e = Pairs ? 0 : j % 2 * 2;
                            float2 v = make_float2(value<Pairs>(a, e), value<Pairs>(a, e + 1));
                            if (Residual) {
                                const float2 r = unpack2<T>(add[j]);
                                v = make_float2(v.x + r.x, v.y + r.y);
                            }
                            u[j] = pack2<T>(v.x, v.y);
                        }
                        stmatrix4_trans(address, u[0], u[1], u[2], u[3]);
                    }
                hand_over([&] {
                    const int t = token0 + q0 * kPieceTokens;
                    if (low) tensor_store(y_map_, feature_, t, pair);
                    if (high) tensor_store(y_map_, feature_, t + kPieceTokens, pair + kPieceBytes);
                });
            }
            if (Residual && q0 + kAhead < kPieces) {
                fetch(q0 + kAhead);
                fetch(q0 + kAhead + 1);
            }
        }
    }

    // Heads lie in the pieces of both warpgroups, rounded: all 256 threads turn them, four elements and their
    // four partners at a time.
    template <int Tokens>
    __device__ __forceinline__ void turned(const float (&acc)[Tokens / 2], int token0, int first, int end) {
        constexpr int kUnits = 16;  // of a token in 128 rows
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, head_dim = p_.rope.head_dim;
        const int token = lane / 16 * 8 + lane % 8, eight = warp * 2 + lane / 8 % 2;
        const uint32_t place = token * 128 + (eight ^ (token % 8)) * 16;
        const uint32_t both = staging_ - threadIdx.x / 128 * kStagingBytes;
        const int row = rope_row(head_dim, threadIdx.x % kUnits);
        const int head = (block_ * kBlockRows + row) / head_dim, at = row % head_dim;
        const auto load4 = [&](uint32_t pieces, int t, int r) {
            const uint32_t from = pieces + r / 64 * kStagingBytes + t / kPieceTokens * kPieceBytes +
                                  t % kPieceTokens * 128 + ((r % 64 / 8) ^ (t % 8)) * 16 + r % 8 * 2;
            uint2 v;
            asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(from));
            const float2 lo = unpack2<T>(v.x), hi = unpack2<T>(v.y);
            return make_float4(lo.x, lo.y, hi.x, hi.y);
        };
#pragma unroll
        for (int q0 = 0; q0 < Tokens / kPieceTokens; q0 += 2) {
            if (q0 + 2 <= first || q0 >= end) continue;
            const uint32_t pair = staging_ + turn_;
#pragma unroll
            for (int q = q0; q < q0 + 2; ++q)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const float* a = acc + q * 16 + h * 8;  // eight tokens, rows 0-7 and 8-15, then the next
                    stmatrix4_trans(pair + place + q % 2 * kPieceBytes + h * (kPieceBytes / 2),
                                    pack2<T>(a[0], a[1]), pack2<T>(a[2], a[3]), pack2<T>(a[4], a[5]),
                                    pack2<T>(a[6], a[7]));
                }
            asm volatile("bar.sync 1, 256;" ::: "memory");
            // Written again two pairs later, when everybody has been at the barrier of the one between.
            const int begin = max(first - q0, 0) * kPieceTokens;
            const int n = min(min(end - q0, 2) * kPieceTokens, p_.m - token0 - q0 * kPieceTokens);
#pragma unroll 2
            for (int t = begin + threadIdx.x / kUnits; t < n; t += 256 / kUnits)
                finish_rope<T>(p_, head, at, token0 + q0 * kPieceTokens + t, load4(both + turn_, t, row),
                               load4(both + turn_, t, row + head_dim / 2));
            turn_ ^= 2 * kPieceBytes;
        }
    }

    // A float32 piece takes the place of two: one per 32 features.
    template <int Tokens, bool Pairs>
    __device__ __forceinline__ void staged_floats(const float (&acc)[Tokens / 2], int token0, int first,
                                                  int end) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
        uint32_t place[Pairs ? 2 : 4];
#pragma unroll
        for (int e = 0; e < (Pairs ? 2 : 4); ++e) {
            const int token = lane % 4 * 2 + e % 2, f = warp * (Pairs ? 8 : 16) + lane / 4 + e / 2 * 8;
            place[e] = f / 32 * kPieceBytes + token * 128 + (f % 32 / 4 ^ token) * 16 + f % 4 * 4;
        }
#pragma unroll
        for (int q = 0; q < Tokens / kPieceTokens; ++q) {
            if (q < first || q >= end) continue;
            const uint32_t piece = staging_ + turn_;
#pragma unroll
            for (int e = 0; e < (Pairs ? 2 : 4); ++e) {
                const uint32_t address = piece + place[e];
#pragma unroll
                for (int i = 0; i < kPieceTokens / 8; ++i)
                    asm volatile("st.shared.f32 [%0], %1;" ::"r"(address + i * 1024),
                                 "f"(value<Pairs>(acc + (q * 4 + i) * 4, e))
                                 : "memory");
            }
            hand_over([&] {
                const int t = token0 + q * kPieceTokens;
                tensor_store(y_map_, feature_, t, piece);
                if (!Pairs) tensor_store(y_map_, feature_ + 32, t, piece + kPieceBytes);
            });
        }
    }

    // The warpgroup's pieces are complete: one thread has them stored, and the others may be written again.
    template <typename Store>
    __device__ __forceinline__ void hand_over(Store store) {
        const bool elected = threadIdx.x % 128 == 0;
        async_proxy_fence();
        if (elected) bulk_wait_read();
        asm volatile("bar.sync %0, 128;" ::"r"(2 + threadIdx.x / 128) : "memory");
        if (elected) {
            store();
            bulk_commit();
        }
        turn_ ^= 2 * kPieceBytes;
    }

    static __device__ __forceinline__ void shared_store(uint32_t address, uint4 v) {
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v.x), "r"(v.y), "r"(v.z),
                     "r"(v.w)
                     : "memory");
    }

    template <int Tokens, typename Out, bool Pairs>
    __device__ __forceinline__ void direct(const float (&acc)[Tokens / 2], int token0, int first,
                                           int end) const {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int q = 0; q < Tokens / kPieceTokens; ++q) {
            if (q < first || q >= end) continue;
#pragma unroll
            for (int i = q * 4; i < q * 4 + 4; ++i)
#pragma unroll
                for (int e = 0; e < (Pairs ? 2 : 4); ++e) {
                    const int token = token0 + i * 8 + lane % 4 * 2 + e % 2,
                              f = feature_ + lane / 4 + e / 2 * 8;
                    if (token >= p_.m || f >= n_features_) continue;
                    float v = value<Pairs>(acc + i * 4, e);
                    if (p_.residual)
                        v += to_float(static_cast<const T*>(p_.residual)[token * p_.residual_stride + f]);
                    static_cast<Out*>(p_.y)[token * p_.y_stride + f] = from_float<Out>(v);
                }
        }
    }

    const LinearParams& p_;
    const bool staged_, pairs_;
    const int n_features_;  // columns of y
    const CUtensorMap* y_map_;
    const uint32_t staging_;
    uint32_t turn_ = 0;  // offset of the pair of pieces that is written now
    int block_;          // of 128 weight rows
    int feature_;        // of y, first of this warp
};

}  // namespace rvllm::cuda
