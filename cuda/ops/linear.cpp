// linear, linear_silu_mul: y = act(x @ weight^T + bias) through gemm/linear.h, whose choice of a kernel
// depends on the rows of the step.
#include "ops/linear.h"

#include "kernels.h"

namespace rvllm::cuda {
namespace {

void run(const OpCall& call, const RunContext& ctx, Act act) {
    LinearArgs args = linear_args(call, ctx);
    args.act = act;
    if (args.m > 0) run_linear(linear_desc(args, call, ctx), args, call, ctx);
}

void run_linear_silu_mul(const OpCall& call, const RunContext& ctx) {
    run(call, ctx, Act::silu_mul);
}

bool fits(const KernelKey& key) {
    return is_half(key.in) && key.weight == key.in && key.format == WeightFormat::dense &&
           (key.out == key.in || key.out == DType::f32) && key.k % 8 == 0;
}

}  // namespace

LinearArgs linear_args(const OpCall& call, const RunContext& ctx) {
    const Weight& w = *call.weight[0];
    const Operand &x = call.in[0], &y = call.out[0];
    LinearArgs args;
    args.weight = w.data;
    args.x = x.data;
    args.bias = call.weight[1] ? static_cast<const float*>(call.weight[1]->data) : nullptr;
    args.y = y.data;
    args.x_stride = x.row_stride;
    args.y_stride = y.row_stride;
    args.m = static_cast<int32_t>(rows_of(y, *ctx.step));
    args.n = static_cast<int32_t>(w.n);
    args.k = static_cast<int32_t>(w.k);
    args.out = y.dtype;
    return args;
}

LinearDesc linear_desc(const LinearArgs& args, const OpCall& call, const RunContext& ctx) {
    const Context& c = context_of(ctx);
    return choose_linear(c.device, {args.m, args.n, args.k, call.weight[0]->dtype, c.batch_invariant});
}

void run_linear(const LinearDesc& desc, const LinearArgs& args, const OpCall& call, const RunContext& ctx) {
    Context& c = context_of(ctx);
    note_error(c, call, launch_linear(desc, args, c.linear_workspace, c.stream, c.pdl));
}

void run_linear(const OpCall& call, const RunContext& ctx) {
    run(call, ctx, Act::none);
}

Kernel find_linear(const KernelKey& key) {
    return fits(key) ? Kernel{run_linear, "linear"} : Kernel{};
}

Kernel find_linear_silu_mul(const KernelKey& key) {
    return fits(key) && key.n % 16 == 0 ? Kernel{run_linear_silu_mul, "linear_silu_mul"} : Kernel{};
}

}  // namespace rvllm::cuda
