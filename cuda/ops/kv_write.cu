// kv_write: keys and values of the step's tokens into the paged cache; half a warp per token and head.
#include "ops/heads.cuh"

namespace rvllm::cuda {
namespace {

template <typename T, int N>
__global__ void kv_write_kernel(Rows<const T> k, Rows<const T> v, const int32_t* __restrict__ slots,
                                CacheRows<T> cache, int n_kv_heads) {
    pdl_launch_dependents();
    pdl_wait();
    const int head = head_of_thread(), slot = slots[blockIdx.x];
    if (head >= n_kv_heads || slot < 0) return;
    const int64_t at = cache.at(slot, head), column = (int64_t)head * cache.head_dim;
    copy_head<T, N>(k.row(blockIdx.x) + column, cache.k + at, cache.head_dim);
    copy_head<T, N>(v.row(blockIdx.x) + column, cache.v + at, cache.head_dim);
}

void run(const OpCall& call, const RunContext& ctx) {
    const KvCacheView& kv = ctx.kv[call.attrs.group];
    with_type(call.in[0].dtype, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const bool wide = heads_aligned(kv.head_dim, 0, call.in[0], call.in[1]);
        launch(call, ctx, wide ? kv_write_kernel<T, kHeadVector> : kv_write_kernel<T, 1>,
               head_grid(rows_of(call.in[0], *ctx.step), kv.n_kv_heads), kHeadThreads, 0,
               rows<const T>(call.in[0]), rows<const T>(call.in[1]),
               static_cast<const int32_t*>(call.in[2].data), cache_rows<T>(kv, call.attrs.layer),
               kv.n_kv_heads);
    });
}

}  // namespace

Kernel find_kv_write(const KernelKey& key) {
    return is_half(key.in) && key.kv == key.in ? Kernel{run, "kv_write"} : Kernel{};
}

}  // namespace rvllm::cuda
