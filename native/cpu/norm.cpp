// rms_norm, add_rms_norm and head_norm: RMSNorm (1910.07467) of whole rows and of single heads.
#include "kernels.h"
#include "rows.h"

namespace rvllm {
namespace {

const float* weights_of(const OpCall& call) {
    return static_cast<const float*>(call.weight[0]->data);
}

void run_rms_norm(const OpCall& call, const RunContext& ctx) {
    const Operand &x = call.in[0], &y = call.out[0];
    const RowKernels& rows = row_kernels();
    for_ranges(ctx, rows_of(y, *ctx.step), 2 * y.cols, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            rows.rms_norm(row_of(x, r), weights_of(call), row_of(y, r), y.cols, call.attrs.eps);
        }
    });
}

void run_add_rms_norm(const OpCall& call, const RunContext& ctx) {
    const Operand &x = call.in[0], &residual = call.in[1], &y = call.out[0], &sum = call.out[1];
    const RowKernels& rows = row_kernels();
    for_ranges(ctx, rows_of(y, *ctx.step), 4 * y.cols, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            rows.add(row_of(x, r), row_of(residual, r), row_of(sum, r), y.cols);
            rows.rms_norm(row_of(sum, r), weights_of(call), row_of(y, r), y.cols, call.attrs.eps);
        }
    });
}

void run_head_norm(const OpCall& call, const RunContext& ctx) {
    const Operand &x = call.in[0], &y = call.out[0];
    const RowKernels& rows = row_kernels();
    const int64_t head_dim = call.attrs.head_dim;
    for_ranges(ctx, rows_of(y, *ctx.step), 2 * y.cols, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            for (int64_t c = 0; c < y.cols; c += head_dim) {
                rows.rms_norm(row_of(x, r) + c, weights_of(call), row_of(y, r) + c, head_dim, call.attrs.eps);
            }
        }
    });
}

bool is_f32(const KernelKey& key) {
    return key.in == DType::f32 && key.out == DType::f32;
}

}  // namespace

Kernel cpu_find_rms_norm(const KernelKey& key) {
    return is_f32(key) ? Kernel{run_rms_norm, KERNEL_NAMES("rms_norm.f32").best()} : Kernel{};
}

Kernel cpu_find_add_rms_norm(const KernelKey& key) {
    return is_f32(key) ? Kernel{run_add_rms_norm, KERNEL_NAMES("add_rms_norm.f32").best()} : Kernel{};
}

Kernel cpu_find_head_norm(const KernelKey& key) {
    return is_f32(key) && key.attrs.head_dim > 0 ? Kernel{run_head_norm, KERNEL_NAMES("head_norm.f32").best()}
                                                 : Kernel{};
}

}  // namespace rvllm
