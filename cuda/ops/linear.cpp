// linear, linear_silu_mul: y = act(x @ weight^T + bias) through gemm/linear.h, whose choice of a kernel
// depends on the rows of the step.
#include "ops/linear.h"

#include <algorithm>

#include "composition.h"
#include "gemm/cublas.h"
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

// Calls f(linear, act, at most m rows of it) for every product among the calls.
template <typename F>
void each_product(const OpCall* calls, int32_t n_calls, const StepLimits& limits, const F& f) {
    StepInput largest;
    largest.n_tokens = limits.max_tokens;
    largest.n_seqs = limits.max_seqs;
    largest.n_rows = limits.max_rows;
    const auto product = [&](const OpCall& call, Act act) {
        f(call, act, static_cast<int32_t>(rows_of(call.out[0], largest)));
    };
    for (int32_t i = 0; i < n_calls; ++i) {
        if (calls[i].op == Op::linear) product(calls[i], Act::none);
        if (calls[i].op == Op::linear_silu_mul) product(calls[i], Act::silu_mul);
        if (calls[i].op == Op::linear_rope_kv_write) product(composition(calls[i]).linear, Act::none);
    }
}

LinearArgs args_of(const OpCall& call, int32_t m) {
    const Weight& w = *call.weight[0];
    const Operand &x = call.in[0], &y = call.out[0];
    LinearArgs args;
    args.weight = w.data;
    args.x = x.data;
    args.bias = call.weight[1] ? static_cast<const float*>(call.weight[1]->data) : nullptr;
    args.y = y.data;
    args.x_stride = x.row_stride;
    args.y_stride = y.row_stride;
    args.m = m;
    args.n = static_cast<int32_t>(w.n);
    args.k = static_cast<int32_t>(w.k);
    args.out = y.dtype;
    return args;
}

}  // namespace

LinearArgs linear_args(const OpCall& call, const RunContext& ctx) {
    LinearArgs args = args_of(call, static_cast<int32_t>(rows_of(call.out[0], *ctx.step)));
    args.layout = context_of(ctx).layout();
    args.scratch = context_of(ctx).linear_scratch;
    return args;
}

LinearDesc linear_desc(const LinearArgs& args, const OpCall& call, const RunContext& ctx) {
    const Context& c = context_of(ctx);
    return choose_linear(c.device,
                         {args.m, args.n, args.k, call.weight[0]->dtype, c.batch_invariant, c.gemm_strategy},
                         &c.linear_table);
}

void run_linear(const LinearDesc& desc, const LinearArgs& args, const OpCall& call, const RunContext& ctx) {
    Context& c = context_of(ctx);
    note_error(c, call,
               desc.kernel == LinearKernel::cublas
                   ? c.cublas->run(args, desc.dtype, c.stream, c.pdl)
                   : launch_linear(desc, args, c.linear_workspace, c.stream, c.pdl));
}

size_t linear_scratch_bytes(const Context& c, const OpCall* calls, int32_t n_calls,
                            const StepLimits& limits) {
    size_t bytes = 0;
    if (c.gemm_strategy == GemmStrategy::cutlass) return 0;
    each_product(calls, n_calls, limits, [&](const OpCall& call, Act act, int32_t max_m) {
        bytes = std::max(bytes, CublasLt::scratch_bytes(act, call.out[0].dtype, call.weight[0]->n, max_m));
    });
    return bytes;
}

const char* prepare_linears(Context& c, const OpCall* calls, int32_t n_calls, const StepLimits& limits) {
    const char* wrong = nullptr;
    if (!c.cublas) return nullptr;
    each_product(calls, n_calls, limits, [&](const OpCall& call, Act act, int32_t max_m) {
        if (wrong || max_m == 0) return;
        LinearArgs args = args_of(call, max_m);
        args.act = act;
        args.scratch = c.linear_scratch;
        wrong = c.cublas->prepare(args, call.weight[0]->dtype, c.stream);
    });
    return wrong;
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
