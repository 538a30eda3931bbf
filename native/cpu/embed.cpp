// The op `embed`: y[t] = table[ids[t]]. A row lies scattered over its panel, one group of k every
// `width` groups, so a gather touches one cache line per group; the panel's pages are few.
// Precondition: 0 <= ids[t] < table.n. Whoever accepts token ids checks them.
#include "kernels.h"
#include "pack.h"

namespace rvllm {

namespace {

constexpr int64_t kSerialValues = 1 << 14;  // what one thread gathers as fast as several would

template <DType dtype>
void gather(const char* panel, const PanelLayout& layout, int64_t lane, int64_t k, float* y) {
    constexpr int64_t group = dtype == DType::bf16 ? 2 : 1;
    const char* from = panel + lane * group * dtype_bytes(dtype);
    const int64_t stride = layout.width * group;
    int64_t i = 0;
    for (; i + group <= k; i += group, from += stride * dtype_bytes(dtype)) {
        for (int64_t g = 0; g < group; ++g) y[i + g] = load_f32(from, dtype, g);
    }
    for (int64_t g = 0; i < k; ++i, ++g) y[i] = load_f32(from, dtype, g);
}

template <DType dtype>
void embed(const OpCall& call, const RunContext& ctx) {
    const Weight& table = *call.weight[0];
    const auto* ids = static_cast<const int32_t*>(call.in[0].data);
    const Operand& y = call.out[0];
    const int64_t n_tokens = rows_of(call.in[0], *ctx.step);
    const PanelLayout layout = panel_layout(dtype, isa());
    const size_t panel_bytes = layout.panel_bytes(table.k, dtype);
    const auto one = [&](int64_t t, int) {
        const int64_t id = ids[t * call.in[0].row_stride];
        gather<dtype>(static_cast<const char*>(table.data) + id / layout.width * panel_bytes, layout,
                      id % layout.width, table.k, row_of(y, t));
    };
    if (n_tokens * table.k <= kSerialValues) {
        for (int64_t t = 0; t < n_tokens; ++t) one(t, 0);
    } else {
        parallel_for(pool_of(ctx), n_tokens, one);
    }
}

}  // namespace

Kernel cpu_find_embed(const KernelKey& key) {
    if (key.in != DType::i32 || key.out != DType::f32 || key.format != WeightFormat::dense) return {};
    switch (key.weight) {
        case DType::f32: return {embed<DType::f32>, "embed.f32"};
        case DType::f16: return {embed<DType::f16>, "embed.f16"};
        case DType::bf16: return {embed<DType::bf16>, "embed.bf16"};
        default: return {};
    }
}

}  // namespace rvllm
