// embed_packed: rows of a table in its resident layout, which tied LM heads share.
#include "device/convert.cuh"
#include "device/launch.cuh"
#include "device/pdl.cuh"
#include "gemm/pack.h"

namespace rvllm::cuda {
namespace {

constexpr int kThreads = 128;

template <typename T, typename Out>
__global__ void embed_kernel(PackedWeight w, const int32_t* __restrict__ ids, Out* __restrict__ y,
                             int64_t y_stride) {
    pdl_launch_dependents();
    pdl_wait();
    const int64_t id = ids[blockIdx.x];
    const bool valid = id >= 0 && id < w.n;
    Out* row = y + blockIdx.x * y_stride;
    for (int64_t piece = threadIdx.x; piece * 8 < w.k; piece += kThreads) {
        union {
            uint4 bytes;
            T v[8];
        } p;
        p.bytes = make_uint4(0, 0, 0, 0);
        if (valid)
            p.bytes = *reinterpret_cast<const uint4*>(
                w.data + piece_offset(w.layout, stored_row(w.order, id, w.n), piece, w.k));
#pragma unroll
        for (int j = 0; j < 8; ++j)
            if (piece * 8 + j < w.k) row[piece * 8 + j] = from_float<Out>(to_float(p.v[j]));
    }
}

template <typename T, typename Out>
cudaError_t launch(const PackedWeight& w, const int32_t* ids, int64_t n_ids, void* y, int64_t y_stride,
                   cudaStream_t stream, bool pdl) {
    return launch_kernel(embed_kernel<T, Out>, {dim3((unsigned)n_ids), kThreads}, stream, pdl, w, ids,
                         static_cast<Out*>(y), y_stride);
}

}  // namespace

cudaError_t embed_packed(const PackedWeight& w, const int32_t* ids, int64_t n_ids, void* y, int64_t y_stride,
                         DType out, cudaStream_t stream, bool pdl) {
    if (n_ids == 0) return cudaSuccess;
    if (w.dtype == DType::f16) {
        return out == DType::f32 ? launch<__half, float>(w, ids, n_ids, y, y_stride, stream, pdl)
                                 : launch<__half, __half>(w, ids, n_ids, y, y_stride, stream, pdl);
    }
    return out == DType::f32 ? launch<__nv_bfloat16, float>(w, ids, n_ids, y, y_stride, stream, pdl)
                             : launch<__nv_bfloat16, __nv_bfloat16>(w, ids, n_ids, y, y_stride, stream, pdl);
}

}  // namespace rvllm::cuda
