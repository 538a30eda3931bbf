// rope_table: cosines and sines of positions * inv_freq. The angle is a float32 product, as in
// transformers; its sine and cosine are taken in double, so that long contexts lose nothing more.
#include "ops/launch.cuh"

namespace rvllm::cuda {
namespace {

__global__ void rope_table_kernel(const int32_t* __restrict__ positions, const float* __restrict__ inv_freq,
                                  Rows<float> y, int half, float scale) {
    pdl_launch_dependents();
    pdl_wait();
    float* row = y.row(blockIdx.x);
    const float position = static_cast<float>(positions[blockIdx.x]);
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        const float angle = position * inv_freq[i];
        double s, c;
        sincos(static_cast<double>(angle), &s, &c);
        row[i] = static_cast<float>(c * scale);
        row[half + i] = static_cast<float>(s * scale);
    }
}

void run(const OpCall& call, const RunContext& ctx) {
    const Operand& y = call.out[0];
    launch(call, ctx, rope_table_kernel, dim3(rows_of(y, *ctx.step)), 64, 0,
           static_cast<const int32_t*>(call.in[0].data), static_cast<const float*>(call.weight[0]->data),
           rows<float>(y), call.attrs.rotary_dim / 2, call.attrs.rope_scale);
}

}  // namespace

Kernel find_rope_table(const KernelKey& key) {
    const bool ok = key.in == DType::i32 && key.out == DType::f32 && key.attrs.rotary_dim % 2 == 0;
    return ok ? Kernel{run, "rope_table"} : Kernel{};
}

}  // namespace rvllm::cuda
