// take_rows: y[r] = x[rows[r]], for the rows whose logits a step wants.
#include <cstring>

#include "kernels.h"

namespace rvllm {
namespace {

void run_take_rows(const OpCall& call, const RunContext& ctx) {
    const Operand &x = call.in[0], &y = call.out[0];
    const int32_t* index = static_cast<const int32_t*>(call.in[1].data);
    for_ranges(ctx, rows_of(y, *ctx.step), 2 * y.cols, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r)
            std::memcpy(row_of(y, r), row_of(x, index[r]), 4 * size_t(y.cols));
    });
}

}  // namespace

Kernel cpu_find_take_rows(const KernelKey& key) {
    return key.in == DType::f32 && key.out == DType::f32 ? Kernel{run_take_rows, "take_rows.f32"} : Kernel{};
}

}  // namespace rvllm
