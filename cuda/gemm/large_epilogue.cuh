// The end of a tile of linear_large_kernel: accumulator fragments become rows of y.
//
// Pieces of 32 tokens by the 64 rows of a warpgroup are turned around in shared memory by stmatrix and
// stored by the copy engine while the next pieces, or the next tile, are computed. A residual takes the
// same way in the other direction. Rows that are not aligned to 16 bytes are stored from the registers.
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
        : p_(p), staged_(staged), pairs_(p.act == Act::silu_mul), y_map_(y_map), staging_(staging) {}

    // The pieces [first, end) of the 128 weight rows `block` and the tokens from token0 on.
    // acc[4 * i + e]: row lane / 4 + e / 2 * 8 of the warp's 16, token 8 * i + lane % 4 * 2 + e % 2.
    template <int Tokens>
    __device__ __forceinline__ void finish(const float (&acc)[Tokens / 2], int block, int token0, int first,
                                           int end) {
        const int warp = threadIdx.x / 32;
        n_features_ = pairs_ ? p_.n / 2 : p_.n;
        feature_ = block * kBlockRows + warp * 16;
        if (pairs_) feature_ /= 2;
        const int f = feature_ + threadIdx.x % 32 / 4, second = pairs_ ? n_features_ + f : f + 8;
        bias_[0] = p_.bias && f < n_features_ ? p_.bias[f] : 0.f;
        bias_[1] = p_.bias && second < p_.n && f < n_features_ ? p_.bias[second] : 0.f;
        end = min(end, (p_.m - token0 + kPieceTokens - 1) / kPieceTokens);
        if (staged_ && p_.out == DType::f32) {
            pairs_ ? staged_floats<Tokens, true>(acc, token0, first, end)
                   : staged_floats<Tokens, false>(acc, token0, first, end);
        } else if (staged_) {
            pairs_ ? staged<Tokens, true>(acc, token0, first, end)
                   : staged<Tokens, false>(acc, token0, first, end);
        } else if (p_.out == DType::f32) {
            pairs_ ? direct<Tokens, float, true>(acc, token0, first, end)
                   : direct<Tokens, float, false>(acc, token0, first, end);
        } else {
            pairs_ ? direct<Tokens, T, true>(acc, token0, first, end)
                   : direct<Tokens, T, false>(acc, token0, first, end);
        }
    }

private:
    template <bool Pairs>
    __device__ __forceinline__ float value(const float* acc, int e) const {
        if (Pairs) return silu(acc[e] + bias_[0]) * (acc[e + 2] + bias_[1]);
        return acc[e] + bias_[e / 2];
    }

    // The 16 bytes of the staging piece that this lane addresses in matrix instruction h: eight features of
    // one token, permuted as the tensor map of y says.
    template <bool Pairs>
    struct Place {
        __device__ __forceinline__ explicit Place(int h) {
            const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
            if (Pairs) {
                token = lane;
                feature = 0;
                offset = token * 64 + (warp ^ (token / 2 % 4)) * 16;
            } else {
                token = h * 16 + lane / 16 * 8 + lane % 8;
                feature = lane / 8 % 2 * 8;
                offset = token * 128 + ((warp * 2 + feature / 8) ^ (token % 8)) * 16;
            }
        }
        int token, feature;  // within the piece, within the warp's
        uint32_t offset;
    };

    template <int Tokens, bool Pairs>
    __device__ __forceinline__ void staged(const float (&acc)[Tokens / 2], int token0, int first, int end) {
        constexpr int kMatrices = Pairs ? 1 : 2;  // instructions of four 8 x 8 matrices per piece
        constexpr int kAhead = 4;                 // pieces whose residual is fetched at once
#pragma unroll
        for (int q0 = 0; q0 < Tokens / kPieceTokens; q0 += kAhead) {
            uint4 residual[kAhead][kMatrices];
            if (p_.residual) {
#pragma unroll
                for (int i = 0; i < kAhead; ++i)
#pragma unroll
                    for (int h = 0; h < kMatrices; ++h)
                        if (q0 + i >= first && q0 + i < end)
                            residual[i][h] = fetch<Pairs>(token0 + (q0 + i) * kPieceTokens, h);
            }
#pragma unroll
            for (int i = 0; i < kAhead && q0 + i < Tokens / kPieceTokens; ++i) {
                const int q = q0 + i, t = token0 + q * kPieceTokens;
                if (q < first || q >= end) continue;
                const uint32_t piece = staging_ + (turn_ * 2 + n_written_) * kPieceBytes;
#pragma unroll
                for (int h = 0; h < kMatrices; ++h) {
                    const uint32_t address = piece + Place<Pairs>(h).offset;
                    uint32_t add[4], u[4];
                    if (p_.residual) {
                        shared_store(address, residual[i][h]);
                        __syncwarp();
                        ldmatrix4_trans(add, address);
                    }
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        // Matrix j is of tokens 8 * j, or of tokens 16 * h + j / 2 * 8 and rows j % 2 * 8.
                        const float* a = acc + q * 16 + (Pairs ? j : 2 * h + j / 2) * 4;
                        const int e = Pairs ? 0 : j % 2 * 2;
                        float2 v = make_float2(value<Pairs>(a, e), value<Pairs>(a, e + 1));
                        if (p_.residual) {
                            const float2 r = unpack2<T>(add[j]);
                            v = make_float2(v.x + r.x, v.y + r.y);
                        }
                        u[j] = pack2<T>(v.x, v.y);
                    }
                    stmatrix4_trans(address, u[0], u[1], u[2], u[3]);
                }
                if (++n_written_ < 2 && q + 1 < end) continue;
                hand_over([&] {
                    if (n_written_ == 2)
                        tensor_store(y_map_, feature_, t - kPieceTokens, piece - kPieceBytes);
                    tensor_store(y_map_, feature_, t, piece);
                });
                n_written_ = 0;
            }
        }
    }

    // A float32 piece takes the place of two: one per 32 features.
    template <int Tokens, bool Pairs>
    __device__ __forceinline__ void staged_floats(const float (&acc)[Tokens / 2], int token0, int first,
                                                  int end) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
        for (int q = 0; q < Tokens / kPieceTokens; ++q) {
            if (q < first || q >= end) continue;
            const uint32_t piece = staging_ + turn_ * 2 * kPieceBytes;
#pragma unroll
            for (int i = 0; i < kPieceTokens / 8; ++i)
#pragma unroll
                for (int e = 0; e < (Pairs ? 2 : 4); ++e) {
                    const int token = i * 8 + lane % 4 * 2 + e % 2;
                    const int f = warp * (Pairs ? 8 : 16) + lane / 4 + e / 2 * 8;
                    const uint32_t offset =
                        f / 32 * kPieceBytes + token * 128 + (f % 32 / 4 ^ token % 8) * 16 + f % 4 * 4;
                    asm volatile("st.shared.f32 [%0], %1;" ::"r"(piece + offset),
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
        turn_ ^= 1;
    }

    template <bool Pairs>
    __device__ __forceinline__ uint4 fetch(int token0, int h) const {
        const Place<Pairs> place(h);
        const int token = token0 + place.token, f = feature_ + place.feature;
        if (token >= p_.m || f >= n_features_) return make_uint4(0, 0, 0, 0);
        return *reinterpret_cast<const uint4*>(static_cast<const T*>(p_.residual) +
                                               token * p_.residual_stride + f);
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
    const CUtensorMap* y_map_;
    const uint32_t staging_;
    int turn_ = 0, n_written_ = 0;  // pair of pieces that is written now, and how many of it are
    int n_features_, feature_;      // columns of y; first of this warp
    float bias_[2];
};

}  // namespace rvllm::cuda
