// kv_write and rope_kv_write: keys and values of the step's tokens into the paged cache.
//
// The fused op does per head what head_norm, rope and kv_write do, with the same row functions: its
// results are bitwise those of the three.
#include <cstring>

#include "kernels.h"
#include "rows.h"

namespace rvllm {
namespace {

constexpr int64_t kMaxHeadDim = 1024;

// Writes heads of one token to its slot, in the element type of the cache.
class CacheWriter {
public:
    CacheWriter(const KvCacheView& kv, int32_t layer, const RowKernels& rows)
        : kv_(kv), rows_(rows), dtype_(static_cast<DType>(kv.dtype)) {
        block_ = int64_t{kv.n_kv_heads} * kv.block_size * kv.head_dim;
        layer_ = layer * kv.n_blocks * block_;
    }

    void write(void* cache, int32_t slot, int64_t head, const float* x) const {
        const int64_t row = head * kv_.block_size + slot % kv_.block_size;
        const int64_t at = layer_ + slot / kv_.block_size * block_ + row * kv_.head_dim;
        switch (dtype_) {
            case DType::f16: rows_.to_f16(x, static_cast<uint16_t*>(cache) + at, kv_.head_dim); break;
            case DType::bf16: rows_.to_bf16(x, static_cast<uint16_t*>(cache) + at, kv_.head_dim); break;
            default: std::memcpy(static_cast<float*>(cache) + at, x, 4 * size_t(kv_.head_dim));
        }
    }

private:
    const KvCacheView& kv_;
    const RowKernels& rows_;
    DType dtype_;
    int64_t block_, layer_;  // elements
};

void run_kv_write(const OpCall& call, const RunContext& ctx) {
    const Operand &k = call.in[0], &v = call.in[1];
    const int32_t* slots = static_cast<const int32_t*>(call.in[2].data);
    const KvCacheView& kv = ctx.kv[call.attrs.group];
    const CacheWriter cache(kv, call.attrs.layer, row_kernels());
    for_ranges(ctx, rows_of(k, *ctx.step), 4 * k.cols, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
            if (slots[t] < 0) continue;
            for (int64_t h = 0; h < kv.n_kv_heads; ++h) {
                cache.write(kv.k, slots[t], h, row_of(k, t) + h * kv.head_dim);
                cache.write(kv.v, slots[t], h, row_of(v, t) + h * kv.head_dim);
            }
        }
    });
}

const char* name_for(DType kv, KernelNames f32, KernelNames f16, KernelNames bf16) {
    return kv == DType::f16 ? f16.best() : kv == DType::bf16 ? bf16.best() : f32.best();
}

}  // namespace

void run_rope_kv_write(const OpCall& call, const RunContext& ctx) {
    const Operand &q = call.in[0], &k = call.in[1], &v = call.in[2], &table = call.in[3], &y = call.out[0];
    const int32_t* slots = static_cast<const int32_t*>(call.in[4].data);
    const KvCacheView& kv = ctx.kv[call.attrs.group];
    const RowKernels& rows = row_kernels();
    const CacheWriter cache(kv, call.attrs.layer, rows);
    const int64_t head_dim = call.attrs.head_dim, turned = call.attrs.rotary_dim;
    const auto turn = [&](const float* x, const Weight* norm, const float* angles, float* to) {
        if (norm) rows.rms_norm(x, static_cast<const float*>(norm->data), to, head_dim, call.attrs.eps);
        const float* from = norm ? to : x;
        rows.rope(from, angles, to, turned / 2);
        if (from != to) std::memcpy(to + turned, from + turned, 4 * size_t(head_dim - turned));
    };
    for_ranges(ctx, rows_of(q, *ctx.step), 4 * (q.cols + k.cols), [&](int64_t begin, int64_t end) {
        alignas(64) float turned_k[kMaxHeadDim];
        for (int64_t t = begin; t < end; ++t) {
            const float* angles = row_of(table, t);
            for (int64_t c = 0; c < q.cols; c += head_dim) {
                turn(row_of(q, t) + c, call.weight[0], angles, row_of(y, t) + c);
            }
            if (slots[t] < 0) continue;
            for (int64_t h = 0; h < kv.n_kv_heads; ++h) {
                turn(row_of(k, t) + h * head_dim, call.weight[1], angles, turned_k);
                cache.write(kv.k, slots[t], h, turned_k);
                cache.write(kv.v, slots[t], h, row_of(v, t) + h * head_dim);
            }
        }
    });
}

Kernel cpu_find_kv_write(const KernelKey& key) {
    if (key.in != DType::f32 || key.kv == DType::i32) return {};
    return {run_kv_write, name_for(key.kv, KERNEL_NAMES("kv_write.f32"), KERNEL_NAMES("kv_write.f16"),
                                   KERNEL_NAMES("kv_write.bf16"))};
}

Kernel cpu_find_rope_kv_write(const KernelKey& key) {
    const Attrs& a = key.attrs;
    if (key.in != DType::f32 || key.out != DType::f32 || key.kv == DType::i32 || a.rotary_dim % 2 ||
        a.rotary_dim > a.head_dim || a.head_dim <= 0 || a.head_dim > kMaxHeadDim) {
        return {};
    }
    return {run_rope_kv_write,
            name_for(key.kv, KERNEL_NAMES("rope_kv_write.f32"), KERNEL_NAMES("rope_kv_write.f16"),
                     KERNEL_NAMES("rope_kv_write.bf16"))};
}

}  // namespace rvllm
