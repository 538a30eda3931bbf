// Conversions between float32 and the 16-bit activation types, singly and in vectors of four.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace rvllm::cuda {

__device__ __forceinline__ float to_float(__half v) {
    return __half2float(v);
}
__device__ __forceinline__ float to_float(__nv_bfloat16 v) {
    return __bfloat162float(v);
}
__device__ __forceinline__ float to_float(float v) {
    return v;
}

template <typename T>
__device__ __forceinline__ T from_float(float v);
template <>
__device__ __forceinline__ __half from_float<__half>(float v) {
    return __float2half_rn(v);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float v) {
    return __float2bfloat16_rn(v);
}
template <>
__device__ __forceinline__ float from_float<float>(float v) {
    return v;
}

// Two values, the first in the low half.
template <typename T>
__device__ __forceinline__ uint32_t pack2(float a, float b) {
    union {
        T v[2];
        uint32_t u;
    } p;
    p.v[0] = from_float<T>(a);
    p.v[1] = from_float<T>(b);
    return p.u;
}

template <typename T>
__device__ __forceinline__ float2 unpack2(uint32_t u) {
    union {
        uint32_t u;
        T v[2];
    } p;
    p.u = u;
    return make_float2(to_float(p.v[0]), to_float(p.v[1]));
}

template <typename T>
__device__ __forceinline__ float4 load4(const T* p) {
    union {
        uint2 u;
        T v[4];
    } q;
    q.u = *reinterpret_cast<const uint2*>(p);
    return make_float4(to_float(q.v[0]), to_float(q.v[1]), to_float(q.v[2]), to_float(q.v[3]));
}

template <typename T>
__device__ __forceinline__ void store4(T* p, float4 v) {
    *reinterpret_cast<uint2*>(p) = make_uint2(pack2<T>(v.x, v.y), pack2<T>(v.z, v.w));
}
template <>
__device__ __forceinline__ void store4<float>(float* p, float4 v) {
    *reinterpret_cast<float4*>(p) = v;
}

}  // namespace rvllm::cuda
