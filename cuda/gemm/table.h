// Measured choices of linear kernels: which rows of which weight go which way, as text and as a lookup.
//
// A line: type, N, K, first and last M, kernel, tokens per tile, split, stages, then the microseconds of this
// way and of the built-in choice when it was measured. The text ends in "end" and the number of lines, so
// that half a file is not taken for a whole one.
#pragma once
#include <string>
#include <vector>

#include "gemm/choose.h"

namespace rvllm::cuda {

// Rows [first, last]. A way is chosen for a whole range; all rows that must have the same bits in any batch
// are in the first one.
struct RowRange {
    int32_t first, last;
};
constexpr RowRange kRowRanges[] = {{1, kDecodeTokens}, {kDecodeTokens + 1, 128},
                                   {129, 192},         {193, 256},
                                   {257, 384},         {385, 512},
                                   {513, 768},         {769, 1024},
                                   {1025, 1536},       {1537, 2048},
                                   {2049, 3072},       {3073, 4096},
                                   {4097, 8192},       {8193, 16384}};

struct LinearEntry {
    DType dtype;
    int32_t n, k;
    RowRange rows;
    LinearWay way;
    double us = 0, built_in_us = 0;  // for who reads the file
};

class LinearTable {
public:
    const LinearWay* find(const LinearShape& shape) const;

    // Keeps the entries of a text, which must all be possible on the device; false: `error` names the line,
    // and the table is as it was.
    bool parse(const char* text, const Device& device, GemmStrategy strategy, std::string* error);

    bool empty() const { return entries_.empty(); }

private:
    std::vector<LinearEntry> entries_;  // sorted by dtype, n, k, rows
};

// One line of the text, with its newline.
std::string entry_line(const LinearEntry& entry);

// The ways worth measuring for all rows of a range, without the built-in choice's own.
std::vector<LinearWay> linear_ways(const Device& device, const LinearShape& shape, RowRange rows);

}  // namespace rvllm::cuda
