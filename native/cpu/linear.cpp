// linear and linear_silu_mul, by gemm().
#include "gemm.h"
#include "kernels.h"

namespace rvllm {

namespace {

void run(const OpCall& call, const RunContext& ctx, bool silu_mul) {
    const Operand& x = call.in[0];
    const Operand& y = call.out[0];
    const Weight& w = *call.weight[0];
    const Weight* bias = call.weight[1];
    Gemm g;
    g.kernels = gemm_kernels(w.dtype, isa());
    g.dtype = w.dtype;
    g.m = rows_of(x, *ctx.step);
    g.n = w.n;
    g.k = w.k;
    g.x = static_cast<const float*>(x.data);
    g.x_stride = x.row_stride;
    g.w = w.data;
    g.bias = bias != nullptr ? static_cast<const float*>(bias->data) : nullptr;
    g.y = static_cast<float*>(y.data);
    g.y_stride = y.row_stride;
    g.silu_mul = silu_mul;
    gemm(pool_of(ctx), g);
}

void run_linear_silu_mul(const OpCall& call, const RunContext& ctx) {
    run(call, ctx, true);
}

const GemmKernels* kernels_for(const KernelKey& key) {
    const bool fits = key.in == DType::f32 && key.out == DType::f32 && key.format == WeightFormat::dense;
    return fits ? gemm_kernels(key.weight, isa()) : nullptr;
}

}  // namespace

void run_linear(const OpCall& call, const RunContext& ctx) {
    run(call, ctx, false);
}

Kernel cpu_find_linear(const KernelKey& key) {
    const GemmKernels* kernels = kernels_for(key);
    return kernels != nullptr ? Kernel{run_linear, kernels->name} : Kernel{};
}

Kernel cpu_find_linear_silu_mul(const KernelKey& key) {
    const GemmKernels* kernels = kernels_for(key);
    return kernels != nullptr && key.n % 2 == 0 ? Kernel{run_linear_silu_mul, kernels->name} : Kernel{};
}

}  // namespace rvllm
