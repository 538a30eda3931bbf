// Work on one head by half a warp: RMSNorm and rotary embedding, float32 in registers.
//
// A lane holds pairs (i, i + rotary_dim / 2), N neighbouring ones at a time, and then elements that do not
// turn.
#pragma once
#include "ops/launch.cuh"

namespace rvllm::cuda {

constexpr int kHeadLanes = 16;
constexpr int kHeadThreads = 256;
constexpr int kCtaHeads = kHeadThreads / kHeadLanes;

__device__ __forceinline__ int head_of_thread() {
    return blockIdx.y * kCtaHeads + threadIdx.x / kHeadLanes;
}

// How a head is turned; `norm` may be nullptr. angles: rotary_dim / 2 cosines, then as many sines.
struct HeadShape {
    int head_dim, rotary_dim;
    float eps;
};

// to = rope(norm?(from)), rounded once. Each element is read before it is written: `to` may be `from`.
template <typename T, int N>
__device__ __forceinline__ void turn_head(const T* from, const float* norm, const float* angles, T* to,
                                          const HeadShape& s) {
    constexpr int kStep = kHeadLanes * N;
    const int first = threadIdx.x % kHeadLanes * N, half = s.rotary_dim / 2;
    float scale = 1.0f;
    if (norm) {
        float squares = 0;
        for (int i = first; i < s.head_dim; i += kStep) {
            const Vec<T, N> v = load_vec<T, N>(from + i);
#pragma unroll
            for (int j = 0; j < N; ++j) squares += to_float(v.v[j]) * to_float(v.v[j]);
        }
        const unsigned lanes = 0xffffu << threadIdx.x % 32 / kHeadLanes * kHeadLanes;
#pragma unroll
        for (int i = kHeadLanes / 2; i > 0; i >>= 1) squares += __shfl_xor_sync(lanes, squares, i);
        scale = 1.0f / sqrtf(squares / s.head_dim + s.eps);
    }
    const auto load = [&](int i) {
        const Vec<T, N> v = load_vec<T, N>(from + i);
        Vec<float, N> x;
#pragma unroll
        for (int j = 0; j < N; ++j) x.v[j] = norm ? to_float(v.v[j]) * scale * norm[i + j] : to_float(v.v[j]);
        return x;
    };
    for (int i = first; i < half; i += kStep) {
        const Vec<float, N> a = load(i), b = load(half + i), c = load_vec<float, N>(angles + i),
                            sn = load_vec<float, N>(angles + half + i);
        Vec<T, N> near, far;
#pragma unroll
        for (int j = 0; j < N; ++j) {
            near.v[j] = from_float<T>(a.v[j] * c.v[j] - b.v[j] * sn.v[j]);
            far.v[j] = from_float<T>(b.v[j] * c.v[j] + a.v[j] * sn.v[j]);
        }
        store_vec<T, N>(to + i, near);
        store_vec<T, N>(to + half + i, far);
    }
    for (int i = s.rotary_dim + first; i < s.head_dim; i += kStep) {
        const Vec<float, N> x = load(i);
        Vec<T, N> rest;
#pragma unroll
        for (int j = 0; j < N; ++j) rest.v[j] = from_float<T>(x.v[j]);
        store_vec<T, N>(to + i, rest);
    }
}

// Where the rows of one layer of the cache lie.
template <typename T>
struct CacheRows {
    T *k, *v;
    int64_t block_elements;
    int block_size, head_dim;

    __device__ __forceinline__ int64_t at(int slot, int head) const {
        return slot / block_size * block_elements +
               ((int64_t)head * block_size + slot % block_size) * head_dim;
    }
};

template <typename T>
CacheRows<T> cache_rows(const KvCacheView& kv, int layer) {
    const int64_t block = (int64_t)kv.n_kv_heads * kv.block_size * kv.head_dim,
                  at = layer * kv.n_blocks * block;
    return {static_cast<T*>(kv.k) + at, static_cast<T*>(kv.v) + at, block, kv.block_size, kv.head_dim};
}

template <typename T, int N>
__device__ __forceinline__ void copy_head(const T* from, T* to, int head_dim) {
    for (int i = threadIdx.x % kHeadLanes * N; i < head_dim; i += kHeadLanes * N)
        store_vec<T, N>(to + i, load_vec<T, N>(from + i));
}

constexpr int kHeadVector = 4;  // elements that move together where heads and pairs allow it

template <typename... Operands>
bool heads_aligned(int head_dim, int rotary_dim, const Operands&... operands) {
    return head_dim % kHeadVector == 0 && rotary_dim / 2 % kHeadVector == 0 &&
           aligned(kHeadVector, operands...);
}

inline dim3 head_grid(int64_t n_tokens, int n_heads) {
    return dim3(n_tokens, (n_heads + kCtaHeads - 1) / kCtaHeads);
}

}  // namespace rvllm::cuda
