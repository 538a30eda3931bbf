// add, mul and silu: element by element, split over rows and, in long rows, over columns.
#include "kernels.h"
#include "rows.h"

namespace rvllm {
namespace {

// Calls f(row, first column, columns) for pieces of y.
template <class F>
void for_pieces(const OpCall& call, const RunContext& ctx, int64_t cost, const F& f) {
    constexpr int64_t kPiece = 4096;  // columns; a multiple of every vector length
    const Operand& y = call.out[0];
    const int64_t per_row = (y.cols + kPiece - 1) / kPiece;
    const int64_t piece = per_row > 1 ? kPiece : y.cols;
    for_ranges(ctx, rows_of(y, *ctx.step) * per_row, cost * piece, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t column = i % per_row * piece;
            f(i / per_row, column, column + piece < y.cols ? piece : y.cols - column);
        }
    });
}

using Binary = void (*)(const float*, const float*, float*, int64_t);

void run_binary(const OpCall& call, const RunContext& ctx, Binary fn, int64_t cost) {
    const Operand &a = call.in[0], &b = call.in[1], &y = call.out[0];
    for_pieces(call, ctx, cost, [&](int64_t r, int64_t c, int64_t n) {
        fn(row_of(a, r) + c, row_of(b, r) + c, row_of(y, r) + c, n);
    });
}

void run_add(const OpCall& call, const RunContext& ctx) {
    run_binary(call, ctx, row_kernels().add, 3);
}

void run_mul(const OpCall& call, const RunContext& ctx) {
    run_binary(call, ctx, row_kernels().mul, 3);
}

void run_silu(const OpCall& call, const RunContext& ctx) {
    const Operand &x = call.in[0], &y = call.out[0];
    const auto fn = row_kernels().silu;
    for_pieces(call, ctx, 8,
               [&](int64_t r, int64_t c, int64_t n) { fn(row_of(x, r) + c, row_of(y, r) + c, n); });
}

Kernel f32_kernel(const KernelKey& key, KernelFn fn, KernelNames names) {
    return key.in == DType::f32 && key.out == DType::f32 ? Kernel{fn, names.best()} : Kernel{};
}

}  // namespace

Kernel cpu_find_add(const KernelKey& key) {
    return f32_kernel(key, run_add, KERNEL_NAMES("add.f32"));
}
Kernel cpu_find_mul(const KernelKey& key) {
    return f32_kernel(key, run_mul, KERNEL_NAMES("mul.f32"));
}
Kernel cpu_find_silu(const KernelKey& key) {
    return f32_kernel(key, run_silu, KERNEL_NAMES("silu.f32"));
}

}  // namespace rvllm
