// Preparation and staging of steps, and the capture of decode steps.
//
// A step travels through pinned memory: arrays, used prefixes only, one behind the other; a kernel fetches
// them and puts them in place. A captured decode step reads its numbers of sequences and splits from memory;
// rows that pad it have slot kNoSlot, so they write no keys, and no attention work.
#include "prepared.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>

#include "attention/attention.h"
#include "kernels.h"
#include "ops/linear.h"

namespace rvllm::cuda {
namespace {

constexpr int32_t kHeaderInts = 4;
constexpr int32_t kMaxGraphRows = 512;

size_t round_up(size_t n) {
    return (n + 255) / 256 * 256;
}

// Takes arrays out of one allocation; with memory == nullptr it only measures.
struct Carver {
    char* memory;
    size_t used = 0;
    template <class T>
    void take(T** array, size_t n) {
        *array = memory ? reinterpret_cast<T*>(memory + used) : nullptr;
        used += round_up(n * sizeof(T));
    }
};

size_t list_bytes(const AttentionWork& w) {
    return kHeaderInts * 4 + w.max_decode * (sizeof(DecodeItem) + kItemRows * 4) +
           w.max_prefill * sizeof(PrefillItem);
}

void carve(Prepared& p, Carver& c) {
    p.staged_bytes = step_input_bytes(p.limits);
    for (AttentionWork& w : p.attention) {
        if (w.group_size == 0) continue;
        p.staged_bytes += round_up(list_bytes(w));
        const size_t rows = static_cast<size_t>(w.max_decode) * w.n_kv_heads * w.group_size;
        c.take(&w.header, kHeaderInts);
        c.take(&w.decode, w.max_decode);
        c.take(&w.decode_rows, w.max_decode * kItemRows);
        c.take(&w.prefill, w.max_prefill);
        c.take(&w.partial_out, rows * w.head_dim);
        c.take(&w.partial_stats, rows * 2);
        c.take(&w.arrived, static_cast<size_t>(p.limits.max_seqs) * decode_tiles(w.n_kv_heads, w.group_size));
    }
    c.take(&p.linear_scratch, p.linear_scratch_bytes);
}

// Fills in what follows from the calls and the limits alone. Returns a block size that does not work, or 0.
int size_up(const Context& context, Prepared& p, const OpCall* calls, int32_t n_calls, const KvCacheView* kv,
            const StepLimits& limits) {
    p.limits = limits;
    p.linear_scratch_bytes = linear_scratch_bytes(context, calls, n_calls, limits);
    for (int32_t i = 0; i < n_calls; ++i) {
        const Attrs& a = calls[i].attrs;
        if (calls[i].op != Op::attention) continue;
        if (kv[a.group].block_size % kGranule) return kv[a.group].block_size;
        AttentionWork& w = p.attention[a.group];
        w.group_size = a.n_heads / a.n_kv_heads;
        w.tile_rows = choose_attention(context.attention_device, calls[i].in[0].dtype, a.head_dim).tile_rows;
        w.one_kernel = context.batch_invariant;
        w.n_kv_heads = a.n_kv_heads;
        w.block_size = kv[a.group].block_size;
        w.head_dim = a.head_dim;
        w.max_decode = max_splits(limits, kv[a.group].block_size);
        w.n_ctas = decode_ctas(a.head_dim) * context.device.n_sms;
        w.max_prefill = max_prefill_items(limits, w.group_size, w.tile_rows);
    }
    Carver measure{nullptr};
    carve(p, measure);
    p.device_bytes = measure.used;
    return 0;
}

// Writes arrays one behind the other and remembers where each belongs.
struct Packer {
    char* memory;
    Segments& segments;
    int32_t used = 0;  // int32

    int32_t* at() { return reinterpret_cast<int32_t*>(memory) + used; }
    void placed(void* dst, int32_t n, int32_t n_padded = 0, int32_t fill = 0) {
        n_padded = std::max(n, n_padded);
        if (n_padded == 0) return;
        segments.of[segments.n++] = {static_cast<int32_t*>(dst), used, n, n_padded, fill};
        used += n;
    }
    void put(void* dst, const void* src, int32_t n, int32_t n_padded = 0, int32_t fill = 0) {
        if (n > 0) std::memmove(at(), src, static_cast<size_t>(n) * 4);
        placed(dst, n, n_padded, fill);
    }
};

// The smallest bucket for a step, if it is one that was captured: a decode of every sequence.
const Bucket* bucket_for(const Prepared& p, const StepInput& s) {
    if (s.max_query_len != 1 || s.n_rows != s.n_tokens || s.n_seqs != s.n_tokens) return nullptr;
    for (const Bucket& b : p.buckets) {
        if (b.n_rows >= s.n_tokens) return &b;
    }
    return nullptr;
}

std::vector<int32_t> bucket_sizes(const StepLimits& limits) {
    const int32_t most = std::min({limits.max_tokens, limits.max_seqs, limits.max_rows, kMaxGraphRows});
    std::vector<int32_t> sizes;
    for (int32_t n = 1; n < most; n += n < 8 ? n : n < 256 ? 8 : 32) sizes.push_back(n);
    sizes.push_back(most);
    return sizes;
}

}  // namespace

Prepared::~Prepared() {
    for (const Bucket& b : buckets) cudaGraphExecDestroy(b.graph);
    for (cudaEvent_t e : placed) {
        if (e) cudaEventDestroy(e);
    }
    if (pinned) cudaFreeHost(pinned);
    if (device_memory) cudaFree(device_memory);
}

size_t prepared_bytes(const Context& context, const OpCall* calls, int32_t n_calls, const KvCacheView* kv,
                      const StepLimits& limits) {
    Prepared p;
    size_up(context, p, calls, n_calls, kv, limits);
    return p.device_bytes + BlockMoves::bytes(kv, limits);
}

Prepared* prepare_steps(Context& context, const OpCall* calls, int32_t n_calls, const KvCacheView* kv,
                        const StepInput* step, const StepLimits& limits, char* error, size_t error_size) {
    auto p = std::make_unique<Prepared>();
    p->step = step;
    const int bad = size_up(context, *p, calls, n_calls, kv, limits);
    if (bad) {
        std::snprintf(error, error_size,
                      "attention on CUDA needs a block size that is a multiple of %d, not %d", kGranule, bad);
        return nullptr;
    }
    cudaError_t e = alloc_zeroed(&p->device_memory, p->device_bytes, context.stream);
    if (e == cudaSuccess)
        e = cudaHostAlloc(reinterpret_cast<void**>(&p->pinned), kStagingSlots * p->staged_bytes, 0);
    for (cudaEvent_t& event : p->placed) {
        if (e == cudaSuccess) e = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    }
    if (e == cudaSuccess) e = p->moves.create(kv, limits);
    if (e != cudaSuccess) {
        std::snprintf(error, error_size, "cannot allocate %.1f MB of device memory for the steps' work: %s",
                      (p->device_bytes + BlockMoves::bytes(kv, limits)) / 1e6, cudaGetErrorString(e));
        return nullptr;
    }
    Carver place{static_cast<char*>(p->device_memory)};
    carve(*p, place);
    return p.release();
}

cudaError_t capture_decodes(Context& context, Prepared& p, const OpCall* calls, int32_t n_calls,
                            const KvCacheView* kv) {
    for (int32_t n : bucket_sizes(p.limits)) {
        StepInput step = *p.step;
        step.n_tokens = step.n_seqs = step.n_rows = n;
        step.max_query_len = 1;
        for (int g = 0; g < kMaxCacheGroups; ++g) {
            context.attention[g] = p.attention[g];
            context.attention[g].n_decode = n * kMaxSplits;  // the grid only: the kernel reads the number
            context.attention[g].n_prefill = 0;
            context.attention[g].log_warps = n <= kFewSeqs ? kLogDecodeWarps : -1;
        }
        context.linear_scratch = p.linear_scratch;
        context.error = cudaSuccess;
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t exec = nullptr;
        cudaError_t e = cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeRelaxed);
        if (e != cudaSuccess) return e;
        launch_calls(context, calls, n_calls, kv, step);
        e = cudaStreamEndCapture(context.stream, &graph);
        if (context.error != cudaSuccess) e = context.error;
        if (e == cudaSuccess) e = cudaGraphInstantiate(&exec, graph, 0);
        if (graph) cudaGraphDestroy(graph);
        if (e != cudaSuccess) return e;
        p.buckets.push_back({n, exec});
    }
    return cudaSuccess;
}

cudaError_t stage_step(Context& context, Prepared& p, StepInput* dst, const StepInput& src) {
    const cudaError_t reached = cudaEventSynchronize(p.placed[p.slot]);
    if (reached != cudaSuccess) return reached;
    p.bucket = bucket_for(p, src);
    const int32_t n_padded = p.bucket ? p.bucket->n_rows : 0;
    dst->n_tokens = src.n_tokens;
    dst->n_seqs = src.n_seqs;
    dst->n_rows = src.n_rows;
    dst->max_query_len = src.max_query_len;
    dst->max_kv_len = src.max_kv_len;
    dst->step_id = src.step_id;

    Segments segments;
    char* memory = p.pinned + p.slot * p.staged_bytes;
    Packer packer{memory, segments};
    packer.put(dst->token_ids, src.token_ids, src.n_tokens, n_padded);
    if (src.positions) packer.put(dst->positions, src.positions, src.n_tokens, n_padded);
    if (src.logit_rows) packer.put(dst->logit_rows, src.logit_rows, src.n_rows, n_padded);
    packer.placed(dst->copies, 3 * p.moves.plan(src, reinterpret_cast<BlockCopy*>(packer.at())));
    if (src.query_start) packer.put(dst->query_start, src.query_start, src.n_seqs + 1);
    if (src.kv_len) packer.put(dst->kv_len, src.kv_len, src.n_seqs);
    for (int g = 0; g < p.limits.n_groups; ++g) {
        if (src.slots[g]) packer.put(dst->slots[g], src.slots[g], src.n_tokens, n_padded, kNoSlot);
        if (src.tables[g].start) {
            packer.put(dst->tables[g].start, src.tables[g].start, src.n_seqs + 1);
            packer.put(dst->tables[g].blocks, src.tables[g].blocks, src.tables[g].start[src.n_seqs]);
        }
        AttentionWork& w = p.attention[g];
        if (w.group_size == 0 || !src.kv_len) continue;
        // Decode items are cut in place, prefill tiles at the end of the slot, then moved behind them.
        int32_t* header = packer.at();
        auto* decode = reinterpret_cast<DecodeItem*>(header + kHeaderInts);
        auto* prefill = reinterpret_cast<PrefillItem*>(memory + p.staged_bytes) - w.max_prefill;
        cut_attention(src, src.tables[g].start, &w, decode, prefill);
        header[0] = w.n_decode;
        header[1] = w.log_warps;
        auto* rows = reinterpret_cast<int32_t*>(decode + w.n_decode);
        find_decode_rows(w, decode, src.tables[g].blocks, rows);
        packer.placed(w.header, kHeaderInts);
        packer.placed(w.decode, w.n_decode * static_cast<int32_t>(sizeof(DecodeItem) / 4));
        packer.placed(w.decode_rows, w.n_decode * kItemRows);
        packer.put(w.prefill, prefill, w.n_prefill * static_cast<int32_t>(sizeof(PrefillItem) / 4));
    }
    cudaError_t e = place_segments(segments, reinterpret_cast<int32_t*>(memory), dst->token_ids,
                                   dst->last_token, context.stream);
    if (e == cudaSuccess) e = cudaEventRecord(p.placed[p.slot], context.stream);
    p.slot = (p.slot + 1) % kStagingSlots;
    return e;
}

void launch_calls(Context& context, const OpCall* calls, int32_t n_calls, const KvCacheView* kv,
                  const StepInput& step) {
    const RunContext ctx{&step, kv, &context};
    for (int32_t i = 0; i < n_calls; ++i) calls[i].fn(calls[i], ctx);
}

}  // namespace rvllm::cuda
