// Uploads in chunks: host memory to a pinned buffer, to the device, packed there, all asynchronous but the
// first; random weights are made on the device by the CPU's generator (native/cpu/random.cpp).
#include <algorithm>
#include <cstring>
#include <vector>

#include "gemm/pack.h"
#include "half.h"
#include "weights.h"

namespace rvllm::cuda {
namespace {

constexpr size_t kChunkBytes = 16 << 20;
constexpr int kThreads = 256;

__device__ uint32_t hash(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

__global__ void random_kernel(float* dst, int64_t first, int64_t n, uint32_t seed, float factor) {
    const int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    if (i >= n) return;
    const int64_t index = first + i;
    const uint32_t h = hash(hash(seed + (uint32_t)(index >> 32)) + (uint32_t)index);
    const int sum = (h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + (h >> 24);
    dst[i] = (sum - 510) * factor;
}

PackedWeight packed(const Context& c, const Weight& w) {
    return {static_cast<uint8_t*>(w.data), w.n, w.k, w.dtype, w.order, c.layout()};
}

// Pinned and device buffers on first use.
cudaError_t make_upload(Upload& u) {
    for (int i = 0; i < 2; ++i) {
        if (u.packed[i]) continue;
        cudaError_t e = cudaHostAlloc(reinterpret_cast<void**>(&u.pinned[i]), kChunkBytes, 0);
        if (e == cudaSuccess) e = cudaMalloc(reinterpret_cast<void**>(&u.device[i]), kChunkBytes);
        if (e == cudaSuccess) e = cudaEventCreateWithFlags(&u.packed[i], cudaEventDisableTiming);
        if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
}

int64_t chunk_rows(const Weight& w, size_t element) {
    return std::max<int64_t>(1, static_cast<int64_t>(kChunkBytes / (static_cast<size_t>(w.k) * element)));
}

bool valid(const Weight& w, int64_t row, int64_t n_rows) {
    const bool rows = row >= 0 && n_rows >= 0 && row + n_rows <= w.n;
    const bool format = w.format == WeightFormat::vector || w.dtype == DType::f16 || w.dtype == DType::bf16;
    return rows && format && static_cast<size_t>(w.k) * 4 <= kChunkBytes;
}

cudaError_t upload_vector(Context& c, Weight& w, const void* src, DType src_dtype, int64_t row,
                          int64_t n_rows) {
    std::vector<float> values(n_rows);
    for (int64_t i = 0; i < n_rows; ++i) {
        const uint16_t h = src_dtype == DType::f32 ? 0 : static_cast<const uint16_t*>(src)[i];
        values[i] = src_dtype == DType::f32    ? static_cast<const float*>(src)[i]
                    : src_dtype == DType::bf16 ? bf16_to_f32(h)
                                               : f16_to_f32(h);
    }
    const cudaError_t e = cudaMemcpyAsync(static_cast<float*>(w.data) + row, values.data(), n_rows * 4,
                                          cudaMemcpyHostToDevice, c.stream);
    return e == cudaSuccess ? cudaStreamSynchronize(c.stream) : e;
}

}  // namespace

void destroy_upload(Upload& u) {
    for (int i = 0; i < 2; ++i) {
        if (u.pinned[i]) cudaFreeHost(u.pinned[i]);
        if (u.device[i]) cudaFree(u.device[i]);
        if (u.packed[i]) cudaEventDestroy(u.packed[i]);
    }
    u = {};
}

size_t upload_bytes() {
    return 2 * kChunkBytes;
}

size_t resident_bytes(const Context& c, const Weight& w) {
    return w.format == WeightFormat::vector ? static_cast<size_t>(w.n) * 4
                                            : packed_bytes(c.layout(), w.n, w.k);
}

cudaError_t upload_rows(Context& c, Upload& u, Weight& w, const void* src, DType src_dtype, int64_t row,
                        int64_t n_rows) {
    if (!valid(w, row, n_rows) || src_dtype == DType::i32) return cudaErrorInvalidValue;
    if (w.format == WeightFormat::vector) return upload_vector(c, w, src, src_dtype, row, n_rows);
    cudaError_t e = make_upload(u);
    const size_t row_bytes = static_cast<size_t>(w.k) * dtype_bytes(src_dtype);
    const int64_t step = chunk_rows(w, dtype_bytes(src_dtype));
    for (int64_t r = 0; r < n_rows && e == cudaSuccess; r += step) {
        const int64_t n = std::min(step, n_rows - r);
        e = cudaEventSynchronize(u.packed[u.slot]);
        if (e != cudaSuccess) break;
        std::memcpy(u.pinned[u.slot], static_cast<const char*>(src) + r * row_bytes, n * row_bytes);
        e = cudaMemcpyAsync(u.device[u.slot], u.pinned[u.slot], n * row_bytes, cudaMemcpyHostToDevice,
                            c.stream);
        if (e == cudaSuccess)
            e = pack_linear(packed(c, w), u.device[u.slot], src_dtype, row + r, n, c.stream);
        if (e == cudaSuccess) e = cudaEventRecord(u.packed[u.slot], c.stream);
        u.slot ^= 1;
    }
    return e;
}

cudaError_t download_rows(Context& c, Upload& u, const Weight& w, float* dst, int64_t row, int64_t n_rows) {
    if (!valid(w, row, n_rows)) return cudaErrorInvalidValue;
    if (w.format == WeightFormat::vector) {
        const cudaError_t e = cudaMemcpyAsync(dst, static_cast<const float*>(w.data) + row, n_rows * 4,
                                              cudaMemcpyDeviceToHost, c.stream);
        return e == cudaSuccess ? cudaStreamSynchronize(c.stream) : e;
    }
    cudaError_t e = make_upload(u);
    const int64_t step = chunk_rows(w, 4);
    for (int64_t r = 0; r < n_rows && e == cudaSuccess; r += step) {
        const int64_t n = std::min(step, n_rows - r);
        e = unpack_linear(packed(c, w), reinterpret_cast<float*>(u.device[0]), row + r, n, c.stream);
        if (e != cudaSuccess) break;
        e = cudaMemcpyAsync(dst + r * w.k, u.device[0], n * w.k * 4, cudaMemcpyDeviceToHost, c.stream);
        if (e == cudaSuccess) e = cudaStreamSynchronize(c.stream);
    }
    return e;
}

cudaError_t random_rows(Context& c, Upload& u, Weight& w, uint32_t seed, float scale) {
    if (!valid(w, 0, w.n) || w.format != WeightFormat::dense) return cudaErrorInvalidValue;
    cudaError_t e = make_upload(u);
    const int64_t step = chunk_rows(w, 4);
    for (int64_t row = 0; row < w.n && e == cudaSuccess; row += step) {
        const int64_t n_rows = std::min(step, w.n - row), n = n_rows * w.k;
        auto* chunk = reinterpret_cast<float*>(u.device[0]);
        random_kernel<<<(unsigned)((n + kThreads - 1) / kThreads), kThreads, 0, c.stream>>>(
            chunk, row * w.k, n, seed, scale / 147.801f);
        e = cudaGetLastError();
        if (e == cudaSuccess) e = pack_linear(packed(c, w), chunk, DType::f32, row, n_rows, c.stream);
    }
    // A later upload may write the buffer on the host's side only after these kernels.
    if (e == cudaSuccess) e = cudaEventRecord(u.packed[0], c.stream);
    return e;
}

}  // namespace rvllm::cuda
