// The op `linear`: y = x * weight^T + bias, by gemm().
#include "gemm.h"
#include "kernels.h"

namespace rvllm {

namespace {

void linear(const OpCall& call, const RunContext& ctx) {
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
    gemm(pool_of(ctx), g);
}

}  // namespace

Kernel cpu_find_linear(const KernelKey& key) {
    if (key.in != DType::f32 || key.out != DType::f32 || key.format != WeightFormat::dense) return {};
    const GemmKernels* kernels = gemm_kernels(key.weight, isa());
    return kernels != nullptr ? Kernel{linear, kernels->name} : Kernel{};
}

}  // namespace rvllm
