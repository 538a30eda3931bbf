// attention: sequences with one new token to the decode kernel, the others to the prefill kernel, by the
// cut that was staged with the step (work.h).
#include "attention/attention.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "attention/launch.h"
#include "context.h"
#include "kernels.h"

namespace rvllm::cuda {
namespace {

constexpr float kLog2E = 1.4426950408889634f;

template <typename T, int D>
void run(const OpCall& call, const RunContext& ctx) {
    Context& c = context_of(ctx);
    const Attrs& a = call.attrs;
    const KvCacheView& kv = ctx.kv[a.group];
    AttentionParams p;
    p.q = call.in[0].data;
    p.y = call.out[0].data;
    p.q_stride = call.in[0].row_stride;
    p.y_stride = call.out[0].row_stride;
    p.block_elements = static_cast<int64_t>(kv.n_kv_heads) * kv.block_size * D;
    p.k = static_cast<const T*>(kv.k) + a.layer * kv.n_blocks * p.block_elements;
    p.v = static_cast<const T*>(kv.v) + a.layer * kv.n_blocks * p.block_elements;
    p.table_start = ctx.step->tables[a.group].start;
    p.table_blocks = ctx.step->tables[a.group].blocks;
    p.block_size = kv.block_size;
    p.n_heads = a.n_heads;
    p.n_kv_heads = a.n_kv_heads;
    p.group_size = a.n_heads / a.n_kv_heads;
    p.scale = a.softmax_scale * kLog2E;
    p.work = c.attention[a.group];
    const int tiles = p.n_kv_heads * ((p.group_size + kTileHeads - 1) / kTileHeads);
    if (reinterpret_cast<uintptr_t>(p.q) % 16 || p.q_stride % 8 || reinterpret_cast<uintptr_t>(p.y) % 16 ||
        p.y_stride % 8) {
        return note_error(c, call, cudaErrorMisalignedAddress);
    }
    const int n_ctas = std::min(p.work.n_decode * tiles, kDecodeCtas * c.device.n_sms);
    if (n_ctas > 0) note_error(c, call, launch_decode_attention<T, D>(p, n_ctas, c.stream, c.pdl));
    if (p.work.n_prefill > 0) {
        note_error(c, call, launch_prefill_attention<T, D>(p, p.work.n_prefill, c.stream, c.pdl));
    }
}

template <typename T>
KernelFn kernel_for(int head_dim) {
    switch (head_dim) {
        case 64: return run<T, 64>;
        case 80: return run<T, 80>;
        case 96: return run<T, 96>;
        case 128: return run<T, 128>;
        case 256: return run<T, 256>;
        default: return nullptr;
    }
}

}  // namespace

Kernel find_attention(const KernelKey& key) {
    const Attrs& a = key.attrs;
    if (!same_half(key) || key.kv != key.in || a.n_kv_heads <= 0 || a.n_heads % a.n_kv_heads) return {};
    const KernelFn fn =
        key.in == DType::f16 ? kernel_for<__half>(a.head_dim) : kernel_for<__nv_bfloat16>(a.head_dim);
    return fn ? Kernel{fn, "attention.mma"} : Kernel{};
}

}  // namespace rvllm::cuda
