// rope_kv_write: q = rope(norm?(q)), and rope(norm?(k)) and v into the paged cache; half a warp per token and
// head of q, k or v. Rounds once, where its composition rounds after the norm as well.
#include "ops/heads.cuh"
#include "ops/linear.h"

namespace rvllm::cuda {
namespace {

template <typename T>
struct Params {
    Rows<const T> q, k, v;
    Rows<const float> table;
    Rows<T> y;
    const int32_t* slots;
    const float *q_norm, *k_norm;  // or nullptr
    CacheRows<T> cache;
    int n_heads, n_kv_heads;
    HeadShape shape;
};

template <typename T, int N>
__global__ void rope_kv_write_kernel(Params<T> p) {
    pdl_launch_dependents();
    pdl_wait();
    const int64_t t = blockIdx.x;
    const int head = head_of_thread(), dim = p.shape.head_dim;
    const float* angles = p.table.row(t);
    if (head < p.n_heads) {
        const int64_t at = (int64_t)head * dim;
        turn_head<T, N>(p.q.row(t) + at, p.q_norm, angles, p.y.row(t) + at, p.shape);
        return;
    }
    const int slot = p.slots[t], kv_head = (head - p.n_heads) % p.n_kv_heads;
    if (head >= p.n_heads + 2 * p.n_kv_heads || slot < 0) return;
    const int64_t at = p.cache.at(slot, kv_head), column = (int64_t)kv_head * dim;
    if (head < p.n_heads + p.n_kv_heads) {
        turn_head<T, N>(p.k.row(t) + column, p.k_norm, angles, p.cache.k + at, p.shape);
    } else {
        copy_head<T, N>(p.v.row(t) + column, p.cache.v + at, dim);
    }
}

const float* vector_of(const Weight* w) {
    return w ? static_cast<const float*>(w->data) : nullptr;
}

}  // namespace

void run_rope_kv_write(const OpCall& call, const RunContext& ctx) {
    const KvCacheView& kv = ctx.kv[call.attrs.group];
    const Operand& q = call.in[0];
    const int n_heads = q.cols / call.attrs.head_dim;
    with_type(q.dtype, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const Params<T> p = {rows<const T>(q),
                             rows<const T>(call.in[1]),
                             rows<const T>(call.in[2]),
                             rows<const float>(call.in[3]),
                             rows<T>(call.out[0]),
                             static_cast<const int32_t*>(call.in[4].data),
                             vector_of(call.weight[0]),
                             vector_of(call.weight[1]),
                             cache_rows<T>(kv, call.attrs.layer),
                             n_heads,
                             kv.n_kv_heads,
                             {call.attrs.head_dim, call.attrs.rotary_dim, call.attrs.eps}};
        const bool wide = heads_aligned(call.attrs.head_dim, call.attrs.rotary_dim, q, call.in[1], call.in[2],
                                        call.in[3], call.out[0]);
        launch(call, ctx, wide ? rope_kv_write_kernel<T, kHeadVector> : rope_kv_write_kernel<T, 1>,
               head_grid(rows_of(q, *ctx.step), n_heads + 2 * kv.n_kv_heads), kHeadThreads, 0, p);
    });
}

Kernel find_rope_kv_write(const KernelKey& key) {
    const Attrs& a = key.attrs;
    const bool ok = same_half(key) && key.kv == key.in && a.rotary_dim % 2 == 0 &&
                    a.rotary_dim <= a.head_dim && a.head_dim > 0;
    return ok ? Kernel{run_rope_kv_write, "rope_kv_write"} : Kernel{};
}

}  // namespace rvllm::cuda
