// Work on one head by one warp: RMSNorm and rotary embedding, float32 in registers.
//
// A lane holds pairs (i, i + rotary_dim / 2) and then elements that do not turn.
#pragma once
#include "ops/launch.cuh"

namespace rvllm::cuda {

constexpr int kHeadWarps = 4;
constexpr int kMaxHeadDim = 512;

// How a head is turned; `norm` may be nullptr. angles: rotary_dim / 2 cosines, then as many sines.
struct HeadShape {
    int head_dim, rotary_dim;
    float eps;
};

// to = rope(norm?(from)), rounded once. Each element is read before it is written: `to` may be `from`.
template <typename T>
__device__ __forceinline__ void turn_head(const T* from, const float* norm, const float* angles, T* to,
                                          const HeadShape& s) {
    const int lane = threadIdx.x % 32, half = s.rotary_dim / 2;
    float scale = 1.0f;
    if (norm) {
        float squares = 0;
        for (int i = lane; i < s.head_dim; i += 32) squares += to_float(from[i]) * to_float(from[i]);
        scale = 1.0f / sqrtf(warp_sum(squares) / s.head_dim + s.eps);
    }
    const auto element = [&](int i) {
        return norm ? to_float(from[i]) * scale * norm[i] : to_float(from[i]);
    };
    for (int i = lane; i < half; i += 32) {
        const float a = element(i), b = element(half + i), c = angles[i], sn = angles[half + i];
        to[i] = from_float<T>(a * c - b * sn);
        to[half + i] = from_float<T>(b * c + a * sn);
    }
    for (int i = s.rotary_dim + lane; i < s.head_dim; i += 32) to[i] = from_float<T>(element(i));
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

template <typename T>
__device__ __forceinline__ void copy_head(const T* from, T* to, int head_dim) {
    for (int i = threadIdx.x % 32; i < head_dim; i += 32) to[i] = from[i];
}

inline dim3 head_grid(int64_t n_tokens, int n_heads) {
    return dim3(n_tokens, (n_heads + kHeadWarps - 1) / kHeadWarps);
}

}  // namespace rvllm::cuda
