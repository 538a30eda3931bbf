// Which linear kernel runs, as a pure function of device, shape, types and measured choices (no CUDA
// headers).
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend.h"

namespace rvllm::cuda {

enum class LinearKernel : uint8_t {
    none,    // nothing fits: the backend refuses the op
    split,   // sm_90a, few tokens and few rows: the K of a row block is split over a cluster (split.cuh)
    wide,    // sm_90a, few tokens, many rows: persistent CTAs share the tiles evenly (wide.cuh)
    large,   // sm_90a, more tokens: clusters share tokens, some tiles split their K (large.cuh)
    tile,    // every architecture: persistent CTAs of mma.sync, the K of some tiles is cut (tile.cuh)
    cublas,  // cuBLASLt, then the epilogue as a kernel of its own (cublas.h)
};

constexpr LinearKernel kLinearKernels[] = {LinearKernel::split, LinearKernel::wide, LinearKernel::large,
                                           LinearKernel::tile, LinearKernel::cublas};

struct Device {
    int arch;  // 90 for sm_90a
    int n_sms;
    int smem_bytes;  // at most, of a CTA
};

struct LinearShape {
    int32_t m, n, k;
    DType dtype;                   // of weights and activations: f16 or bf16
    bool batch_invariant = false;  // the bits of a row must not depend on m at all
    GemmStrategy strategy = GemmStrategy::cutlass;
};

// How a shape is computed. The sums of a row depend on the kernel, `split` and `n_ctas`: these are
// the same for all m <= kDecodeTokens, and for all m if batch_invariant, so that a row's bits do not depend
// on its batch there.
struct LinearDesc {
    LinearKernel kernel = LinearKernel::none;
    DType dtype = DType::bf16;
    int16_t tokens = 0;     // tokens per tile
    int16_t split = 1;      // CTAs that share the K of one row block; large: of each tile after whole rounds;
                            // tile: at most, of the tiles that are cut
    int16_t sharing = 1;    // large: row blocks of a cluster, which share the tokens they read
    int16_t n_ctas = 0;     // wide, large, tile: CTAs of the grid
    int16_t n_stages = 0;   // tiles of weights in flight per CTA
    int16_t trigger = 0;    // tiles before the last at which the next kernel may start; < 0: at exit
    int32_t slice = 0;      // tokens per launch; more tokens take several launches
    bool measured = false;  // out of a LinearTable
};

// What a measurement decides of a LinearDesc; the rest follows from device and shape.
struct LinearWay {
    LinearKernel kernel = LinearKernel::none;
    int16_t tokens = 0;    // large, tile for many tokens: tokens per tile
    int16_t split = 1;     // split, tile for few tokens: CTAs that share the K of one row block;
                           // tile for many tokens: 2: the K of some tiles is cut
    int16_t n_stages = 0;  // split, wide: at most
};

constexpr int kDecodeTokens = 64;
constexpr int kSliceTokens = 256;

class LinearTable;

// The measured choice of `table` if it has one for the shape, else the built-in one.
LinearDesc choose_linear(const Device& device, const LinearShape& shape, const LinearTable* table = nullptr);

// How a shape is computed in a way; kernel == none: it cannot be.
LinearDesc linear_in_way(const Device& device, const LinearShape& shape, const LinearWay& way);

// Whether that kernel can end in Act::rope.
bool can_rope(const LinearDesc& desc, int head_dim);

// Slots of linear_tile_kernel's ring from sm_80 on: what fits into 99 KB, and more for few tokens where more
// does.
constexpr int kTileDeepStages = 8;
constexpr int tile_stages(int tokens) {
    return tokens <= 16 ? 5 : tokens <= 64 ? 4 : 3;
}

// Of linear_tile_kernel: tokens of the largest tile, and tiles at the end whose K is cut, if any is. More
// than the last, partial round is, so that few parts are to be added up.
int tile_max_tokens(const Device& device);
int64_t n_cut_tiles(int64_t n_tiles, int n_ctas);

// As `rvllm plan` prints it.
const char* kernel_name(LinearKernel kernel);
void describe_linear(const LinearDesc& desc, char* text, size_t size);

}  // namespace rvllm::cuda
