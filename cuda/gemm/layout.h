// The resident layouts of a weight [N, K] of 16-bit elements; one serves every kernel of a GemmStrategy.
//
// tiles: rows are cut into blocks of 128, columns into chunks of 64 (both padded with zeros). A tile of
// 128 x 64 is 16 KB, stored as the image a 128-byte-swizzled shared-memory tile has: row r at
// r * 128 bytes, its eight 16-byte pieces permuted by XOR with r % 8. So one bulk copy brings in a
// tile that wgmma descriptors and ldmatrix read as it is. Tiles of a row block follow each other
// along K. rows: row-major, rows padded to 16 bytes, as cuBLASLt reads them.
//
// In both, RowOrder::gate_up stores rows in groups of 8 gates and their 8 up projections, so that
// the thread that holds a gate value holds its up value too.
#pragma once
#include <cstddef>
#include <cstdint>

#include "weight.h"

#ifdef __CUDACC__
#define RVLLM_HD __host__ __device__ __forceinline__
#else
#define RVLLM_HD inline
#endif

namespace rvllm::cuda {

enum class WeightLayout : uint8_t { tiles, rows };

constexpr int kBlockRows = 128;  // rows of a tile
constexpr int kChunk = 64;       // columns of a tile
constexpr int kTileBytes = kBlockRows * kChunk * 2;

RVLLM_HD int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

RVLLM_HD int64_t row_blocks(int64_t n) {
    return ceil_div(n, kBlockRows);
}
RVLLM_HD int64_t k_chunks(int64_t k) {
    return ceil_div(k, kChunk);
}
// 16-byte pieces of a stored row, padding included.
RVLLM_HD int64_t row_pieces(WeightLayout layout, int64_t k) {
    return layout == WeightLayout::rows ? ceil_div(k, 8) : k_chunks(k) * 8;
}
RVLLM_HD size_t packed_bytes(WeightLayout layout, int64_t n, int64_t k) {
    const int64_t rows = layout == WeightLayout::rows ? n : row_blocks(n) * kBlockRows;
    return (size_t)(rows * row_pieces(layout, k)) * 16;
}

// Where row `row` of the model's weight lies among the stored rows.
RVLLM_HD int64_t stored_row(RowOrder order, int64_t row, int64_t n) {
    if (order == RowOrder::plain) return row;
    const int64_t half = n / 2, i = row < half ? row : row - half;
    return i / 8 * 16 + i % 8 + (row < half ? 0 : 8);
}

// Byte offset of the 16-byte piece that holds columns [8 * piece, 8 * piece + 8) of a stored row.
RVLLM_HD size_t piece_offset(WeightLayout layout, int64_t stored, int64_t piece, int64_t k) {
    if (layout == WeightLayout::rows) return (size_t)(stored * row_pieces(layout, k) + piece) * 16;
    const int64_t block = stored / kBlockRows, r = stored % kBlockRows, chunk = piece / 8, p = piece % 8;
    return (size_t)(block * k_chunks(k) + chunk) * kTileBytes + (size_t)(r * 128 + ((p ^ (r & 7)) << 4));
}

}  // namespace rvllm::cuda
