// rope_table and rope: rotary position embedding (2104.09864), rotate-half convention.
//
// The angle is the float32 product position * inv_freq, as in transformers; its sine and cosine are
// taken in double, so that long contexts lose nothing more.
#include <cmath>
#include <cstring>

#include "kernels.h"
#include "rows.h"

namespace rvllm {
namespace {

void run_rope_table(const OpCall& call, const RunContext& ctx) {
    const Operand& y = call.out[0];
    const int32_t* positions = static_cast<const int32_t*>(call.in[0].data);
    const float* inv_freq = static_cast<const float*>(call.weight[0]->data);
    const int64_t half = call.attrs.rotary_dim / 2;
    const double scale = call.attrs.rope_scale;
    for_ranges(ctx, rows_of(y, *ctx.step), 128 * half, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
            float* row = row_of(y, t);
            for (int64_t i = 0; i < half; ++i) {
                const float angle = static_cast<float>(positions[t]) * inv_freq[i];
                row[i] = static_cast<float>(std::cos(static_cast<double>(angle)) * scale);
                row[half + i] = static_cast<float>(std::sin(static_cast<double>(angle)) * scale);
            }
        }
    });
}

void run_rope(const OpCall& call, const RunContext& ctx) {
    const Operand &x = call.in[0], &table = call.in[1], &y = call.out[0];
    const RowKernels& rows = row_kernels();
    const int64_t head_dim = call.attrs.head_dim, turned = call.attrs.rotary_dim;
    for_ranges(ctx, rows_of(y, *ctx.step), 2 * y.cols, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
            for (int64_t c = 0; c < y.cols; c += head_dim) {
                const float* from = row_of(x, t) + c;
                float* to = row_of(y, t) + c;
                rows.rope(from, row_of(table, t), to, turned / 2);
                if (from != to) std::memcpy(to + turned, from + turned, 4 * size_t(head_dim - turned));
            }
        }
    });
}

}  // namespace

Kernel cpu_find_rope_table(const KernelKey& key) {
    const bool ok = key.in == DType::i32 && key.out == DType::f32 && key.attrs.rotary_dim % 2 == 0;
    return ok ? Kernel{run_rope_table, "rope_table.f32"} : Kernel{};
}

Kernel cpu_find_rope(const KernelKey& key) {
    const Attrs& a = key.attrs;
    const bool ok = key.in == DType::f32 && key.out == DType::f32 && a.rotary_dim % 2 == 0 &&
                    a.head_dim > 0 && a.rotary_dim <= a.head_dim;
    return ok ? Kernel{run_rope, KERNEL_NAMES("rope.f32").best()} : Kernel{};
}

}  // namespace rvllm
