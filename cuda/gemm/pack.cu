// pack_linear, unpack_linear: one thread per 16-byte piece of the resident layout.
#include "device/convert.cuh"
#include "gemm/pack.h"

namespace rvllm::cuda {
namespace {

constexpr int kThreads = 256;

union Piece {
    uint4 bytes;
    __half h[8];
    __nv_bfloat16 b[8];
};

template <typename T>
__device__ T* elements(Piece& p);
template <>
__device__ __half* elements<__half>(Piece& p) {
    return p.h;
}
template <>
__device__ __nv_bfloat16* elements<__nv_bfloat16>(Piece& p) {
    return p.b;
}

template <typename T, typename Src>
__global__ void pack_kernel(PackedWeight w, const Src* __restrict__ src, int64_t row, int64_t n_rows) {
    const int64_t pieces = row_pieces(w.layout, w.k), i = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    if (i >= n_rows * pieces) return;
    const int64_t r = i / pieces, piece = i % pieces;
    Piece p;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        const int64_t column = piece * 8 + j;
        elements<T>(p)[j] = from_float<T>(column < w.k ? to_float(src[r * w.k + column]) : 0.0f);
    }
    const int64_t stored = stored_row(w.order, row + r, w.n);
    *reinterpret_cast<uint4*>(w.data + piece_offset(w.layout, stored, piece, w.k)) = p.bytes;
}

template <typename T>
__global__ void unpack_kernel(PackedWeight w, float* __restrict__ dst, int64_t row, int64_t n_rows) {
    const int64_t pieces = row_pieces(w.layout, w.k), i = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    if (i >= n_rows * pieces) return;
    const int64_t r = i / pieces, piece = i % pieces, stored = stored_row(w.order, row + r, w.n);
    Piece p;
    p.bytes = *reinterpret_cast<const uint4*>(w.data + piece_offset(w.layout, stored, piece, w.k));
    for (int j = 0; j < 8 && piece * 8 + j < w.k; ++j)
        dst[r * w.k + piece * 8 + j] = to_float(elements<T>(p)[j]);
}

unsigned grid_of(const PackedWeight& w, int64_t n_rows) {
    return (unsigned)ceil_div(n_rows * row_pieces(w.layout, w.k), kThreads);
}

template <typename T>
cudaError_t pack_from(const PackedWeight& w, const void* src, DType src_dtype, int64_t row, int64_t n_rows,
                      cudaStream_t stream) {
    const unsigned grid = grid_of(w, n_rows);
    switch (src_dtype) {
        case DType::f32:
            pack_kernel<T><<<grid, kThreads, 0, stream>>>(w, static_cast<const float*>(src), row, n_rows);
            break;
        case DType::f16:
            pack_kernel<T><<<grid, kThreads, 0, stream>>>(w, static_cast<const __half*>(src), row, n_rows);
            break;
        case DType::bf16:
            pack_kernel<T>
                <<<grid, kThreads, 0, stream>>>(w, static_cast<const __nv_bfloat16*>(src), row, n_rows);
            break;
        default: return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

bool valid_rows(const PackedWeight& w, int64_t row, int64_t n_rows) {
    const bool halves = w.order == RowOrder::plain || w.n % 16 == 0;
    return halves && row >= 0 && n_rows >= 0 && row + n_rows <= w.n &&
           (w.dtype == DType::f16 || w.dtype == DType::bf16);
}

}  // namespace

cudaError_t pack_linear(const PackedWeight& w, const void* src, DType src_dtype, int64_t row, int64_t n_rows,
                        cudaStream_t stream) {
    if (!valid_rows(w, row, n_rows)) return cudaErrorInvalidValue;
    if (n_rows == 0) return cudaSuccess;
    return w.dtype == DType::f16 ? pack_from<__half>(w, src, src_dtype, row, n_rows, stream)
                                 : pack_from<__nv_bfloat16>(w, src, src_dtype, row, n_rows, stream);
}

cudaError_t unpack_linear(const PackedWeight& w, float* dst, int64_t row, int64_t n_rows,
                          cudaStream_t stream) {
    if (!valid_rows(w, row, n_rows)) return cudaErrorInvalidValue;
    if (n_rows == 0) return cudaSuccess;
    if (w.dtype == DType::f16) {
        unpack_kernel<__half><<<grid_of(w, n_rows), kThreads, 0, stream>>>(w, dst, row, n_rows);
    } else {
        unpack_kernel<__nv_bfloat16><<<grid_of(w, n_rows), kThreads, 0, stream>>>(w, dst, row, n_rows);
    }
    return cudaGetLastError();
}

}  // namespace rvllm::cuda
