// attention: cuts the step into items of (sequence, KV head, tile of queries) and runs them.
//
// Items so long that threads would wait for them are cut along their keys too, at the fixed split
// points of the arithmetic; their states are merged in order in a second pass.
#include "attention.h"

#include <algorithm>
#include <new>

#include "kernels.h"

namespace rvllm {
namespace {

const AttentionKernels& kernels() {
#if defined(__x86_64__)
    if (isa() >= Isa::avx512) return attention_avx512;
    if (isa() == Isa::avx2) return attention_avx2;
#endif
    return attention_generic;
}

// Calls f(sequence, first token, queries, keys) for the tiles of queries of every sequence, the
// longest of a sequence first.
template <class F>
void for_tiles(const StepInput& step, int tile_queries, const F& f) {
    for (int s = 0; s < step.n_seqs; ++s) {
        const int begin = step.query_start[s], end = step.query_start[s + 1];
        for (int first = begin + (end - begin - 1) / tile_queries * tile_queries; first >= begin;
             first -= tile_queries) {
            const int n = std::min(tile_queries, end - first);
            f(s, first, n, int64_t{step.positions[first + n - 1]} + 1);
        }
    }
}

int n_splits(int64_t n_keys) {
    return static_cast<int>((n_keys + kSplitKeys - 1) / kSplitKeys);
}

void run_attention(const OpCall& call, const RunContext& ctx) {
    const StepInput& step = *ctx.step;
    const Attrs& a = call.attrs;
    const KvCacheView& kv = ctx.kv[a.group];
    const BlockTables& tables = step.tables[a.group];
    ThreadPool* pool = pool_of(ctx);
    const int n_threads = pool_threads(pool);
    const int group = a.n_heads / a.n_kv_heads;
    const int tile_queries = std::max(1, kTileRows / group);

    // What there is to do, and from which cost on an item is cut.
    int64_t total_cost = 0, max_cost = 0, n_tiles = 0, max_rows = 0;
    for_tiles(step, tile_queries, [&](int, int, int n, int64_t n_keys) {
        const int64_t cost = n * group * n_keys;
        total_cost += cost * a.n_kv_heads;
        max_cost = std::max(max_cost, cost);
        max_rows = std::max<int64_t>(max_rows, n * group);
        ++n_tiles;
    });
    if (n_tiles == 0) return;
    total_cost = std::max<int64_t>(total_cost, 1);
    const auto cut = [&](int n, int64_t n_keys) {
        return n_keys > kSplitKeys && n * group <= std::max(kTileRows / 2, group) &&
               n * group * n_keys * 2 * n_threads > total_cost && n_threads > 1;
    };
    int64_t n_items = n_tiles * a.n_kv_heads, n_cut = 0, partial_floats = 0;
    for_tiles(step, tile_queries, [&](int, int, int n, int64_t n_keys) {
        if (!cut(n, n_keys)) return;
        n_cut += a.n_kv_heads;
        n_items += (n_splits(n_keys) - 1) * a.n_kv_heads;
        partial_floats += n_splits(n_keys) * a.n_kv_heads * attention_state_floats(n * group, a.head_dim);
    });

    const int64_t thread_floats = (attention_scratch_floats(max_rows, a.head_dim) + 15) / 16 * 16;
    const size_t bytes = (thread_floats * n_threads + partial_floats) * sizeof(float) +
                         (n_items + n_cut) * sizeof(AttentionItem) + 64;
    float* scratch = static_cast<float*>(pool_scratch(pool, bytes));
    float* partials = scratch + thread_floats * n_threads;
    const uintptr_t after = reinterpret_cast<uintptr_t>(partials + partial_floats);
    auto* items = reinterpret_cast<AttentionItem*>((after + 63) / 64 * 64);
    AttentionItem* merges = items + n_items;  // one per cut tile and KV head

    int64_t i = 0, m = 0;
    for_tiles(step, tile_queries, [&](int s, int first, int n, int64_t n_keys) {
        const int splits = n_splits(n_keys);
        const bool is_cut = cut(n, n_keys);
        for (int h = 0; h < a.n_kv_heads; ++h) {
            AttentionItem item{
                tables.blocks + tables.start[s], n * group * n_keys, nullptr, first, n, h, 0, splits};
            if (!is_cut) {
                new (&items[i++]) AttentionItem(item);
                continue;
            }
            item.cost /= splits;
            item.partial = partials;
            new (&merges[m++]) AttentionItem(item);
            for (int split = 0; split < splits; ++split) {
                item.split_begin = split;
                item.split_end = split + 1;
                item.partial = partials;
                new (&items[i++]) AttentionItem(item);
                partials += attention_state_floats(n * group, a.head_dim);
            }
        }
    });
    // Longest first, where an item is long enough for its place to matter.
    const auto longer = [](const AttentionItem& x, const AttentionItem& y) { return x.cost > y.cost; };
    if (max_cost * 8 * n_threads > total_cost && !std::is_sorted(items, items + n_items, longer)) {
        std::sort(items, items + n_items, longer);
    }

    const int64_t block = int64_t{kv.n_kv_heads} * kv.block_size * kv.head_dim;
    const int64_t layer =
        a.layer * kv.n_blocks * block * static_cast<int64_t>(dtype_bytes(static_cast<DType>(kv.dtype)));
    const AttentionTask task{static_cast<const float*>(call.in[0].data),
                             static_cast<float*>(call.out[0].data),
                             call.in[0].row_stride,
                             call.out[0].row_stride,
                             static_cast<const char*>(kv.k) + layer,
                             static_cast<const char*>(kv.v) + layer,
                             step.positions,
                             a.n_kv_heads,
                             group,
                             a.head_dim,
                             kv.block_size,
                             a.softmax_scale};
    const auto attend = kernels().attend[kv.dtype];
    const auto merge = kernels().merge;
    constexpr int64_t kInline = 1 << 14;  // multiply-adds not worth a second thread
    if (n_cut == 0 && total_cost * a.head_dim < kInline) {
        for (int64_t j = 0; j < n_items; ++j) {
            attend(task, items[j], j + 1 < n_items ? &items[j + 1] : nullptr, scratch);
        }
        return;
    }
    parallel_for(pool, n_items, [&](int64_t j, int thread) {
        attend(task, items[j], j + 1 < n_items ? &items[j + 1] : nullptr, scratch + thread * thread_floats);
    });
    if (n_cut > 0) {
        parallel_for(pool, n_cut,
                     [&](int64_t j, int) { merge(task, merges[j], merges[j].partial, merges[j].split_end); });
    }
}

}  // namespace

// The sizes of run_attention(), at their largest. A tile is cut only where its share of the cost is above
// 1 / (2 * n_threads * n_kv_heads), so fewer than 2 * n_threads are.
size_t attention_workspace_bytes(const Attrs& a, const StepLimits& limits, int block_size, int n_threads) {
    const int64_t group = a.n_heads / a.n_kv_heads;
    const int64_t tile_queries = std::max<int64_t>(1, kTileRows / group);
    const int64_t max_keys = limits.max_table_entries / std::max(limits.max_seqs, 1) * int64_t{block_size};
    const int64_t n_tiles = limits.max_tokens / tile_queries + limits.max_seqs;
    const int64_t n_cut = n_threads > 1 ? 2 * n_threads : 0, splits = n_splits(max_keys);
    const int64_t cut_rows = std::max<int64_t>(kTileRows / 2, group);
    const int64_t thread_floats = (attention_scratch_floats(tile_queries * group, a.head_dim) + 15) / 16 * 16;
    const int64_t partial_floats =
        n_cut * splits * a.n_kv_heads * attention_state_floats(cut_rows, a.head_dim);
    const int64_t n_items = (n_tiles + n_cut * splits) * a.n_kv_heads + n_cut * a.n_kv_heads;
    return (thread_floats * n_threads + partial_floats) * sizeof(float) + n_items * sizeof(AttentionItem) +
           64;
}

Kernel cpu_find_attention(const KernelKey& key) {
    static const KernelNames names[3] = {KERNEL_NAMES("attention.f32"), KERNEL_NAMES("attention.f16"),
                                         KERNEL_NAMES("attention.bf16")};
    const Attrs& a = key.attrs;
    const bool ok = key.in == DType::f32 && key.out == DType::f32 && key.kv <= DType::bf16 &&
                    a.head_dim > 0 && a.head_dim % 8 == 0 && a.n_kv_heads > 0 && a.n_heads > 0 &&
                    a.n_heads % a.n_kv_heads == 0;
    return ok ? Kernel{run_attention, names[static_cast<int>(key.kv)].best()} : Kernel{};
}

}  // namespace rvllm
