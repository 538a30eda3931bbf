// attention: sequences with one new token to the decode kernel, the others to the prefill kernel, by the
// cut that was staged with the step (work.h).
#include "attention/attention.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <type_traits>

#include "attention/launch.h"
#include "context.h"
#include "kernels.h"
#ifdef RVLLM_CUDA_SM90
#include "attention/sm90.h"
#include "tensor_map.h"
#endif

namespace rvllm::cuda {
namespace {

constexpr float kLog2E = 1.4426950408889634f;

template <typename T>
constexpr DType dtype_of() {
    return std::is_same<T, __half>::value ? DType::f16 : DType::bf16;
}

template <typename T, int D>
cudaError_t launch_prefill(const Context& c, const AttentionParams& p) {
    if (p.work.n_prefill == 0) return cudaSuccess;
#ifdef RVLLM_CUDA_SM90
    if (c.attention_device.sm90) {
        CUtensorMap maps[2];
        cudaError_t e = cudaSuccess;
        for (int i = 0; i < 2 && e == cudaSuccess; ++i)
            e = encode_tensor_map(&maps[i], {i ? p.v : p.k, dtype_of<T>(), p.cache_rows, D, D, kGranule, 64});
        if (e != cudaSuccess) return e;
        return launch_prefill_sm90<T, D>(maps[0], maps[1], p, p.work.n_prefill, c.stream, c.pdl);
    }
#endif
    return launch_prefill_attention<T, D>(p, p.work.n_prefill, c.stream, c.pdl);
}

template <typename T, int D>
cudaError_t launch_decode(const Context& c, const AttentionParams& p) {
    const int n_ctas = std::min(p.work.n_decode * decode_tiles(p.n_kv_heads, p.group_size), p.work.n_ctas);
    return n_ctas == 0 ? cudaSuccess : launch_decode_attention<T, D>(p, n_ctas, c.stream, c.pdl);
}

template <typename T, int D>
void run(const OpCall& call, const RunContext& ctx) {
    Context& c = context_of(ctx);
    const Attrs& a = call.attrs;
    const KvCacheView& kv = ctx.kv[a.group];
    AttentionParams p = {};
    p.q = call.in[0].data;
    p.y = call.out[0].data;
    p.q_stride = call.in[0].row_stride;
    p.y_stride = call.out[0].row_stride;
    p.block_elements = static_cast<int64_t>(kv.n_kv_heads) * kv.block_size * D;
    p.k = static_cast<const T*>(kv.k) + a.layer * kv.n_blocks * p.block_elements;
    p.v = static_cast<const T*>(kv.v) + a.layer * kv.n_blocks * p.block_elements;
    p.table_blocks = ctx.step->tables[a.group].blocks;
    p.block_size = kv.block_size;
    p.n_heads = a.n_heads;
    p.n_kv_heads = a.n_kv_heads;
    p.group_size = a.n_heads / a.n_kv_heads;
    p.scale = a.softmax_scale * kLog2E;
    const int n_units = decode_tiles(p.n_kv_heads, p.group_size);
    p.units = Divisor(n_units);
    p.head_tiles = Divisor(n_units / p.n_kv_heads);
    p.block_keys = Divisor(p.block_size);
    p.cache_rows = kv.n_blocks * kv.n_kv_heads * kv.block_size;
    p.work = c.attention[a.group];
    if (reinterpret_cast<uintptr_t>(p.q) % 16 || p.q_stride % 8 || reinterpret_cast<uintptr_t>(p.y) % 16 ||
        p.y_stride % 8) {
        return note_error(c, call, cudaErrorMisalignedAddress);
    }
    // Prefill goes first: decode needs nothing of it, so its CTAs fill the multiprocessors that prefill
    // leaves.
    p.follows_prefill = c.pdl && p.work.n_prefill > 0;
    note_error(c, call, launch_prefill<T, D>(c, p));
    note_error(c, call, launch_decode<T, D>(c, p));
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
    return fn ? Kernel{fn, "attention"} : Kernel{};
}

}  // namespace rvllm::cuda
