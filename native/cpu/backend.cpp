// The CPU as a Backend: host memory, the table of kernels, and a step run to its end by submit().
//
// Every activation is float32; weights and cache may be 16-bit. `device` is the thread pool.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <new>

#include "gemm.h"
#include "kernels.h"
#include "memory.h"
#include "pack.h"
#include "random.h"

namespace rvllm {
namespace {

using FindFn = Kernel (*)(const KernelKey&);

constexpr FindFn kFind[] = {
#define OP(name, inputs, weights, outputs, attrs) cpu_find_##name,
#include "ops.def"
#undef OP
};

ThreadPool* pool_of(Backend* b) {
    return static_cast<ThreadPool*>(b->device);
}

Kernel find(Backend*, const KernelKey* key) {
    return kFind[static_cast<int>(key->op)](*key);
}

void describe(Backend*, const KernelKey*, int32_t, char* text, size_t size) {
    if (size > 0) text[0] = 0;
}

void* alloc(Backend* b, size_t bytes) {
    const size_t available = host_memory_available();
    void* p = bytes <= available ? host_alloc(bytes) : nullptr;
    if (p == nullptr) {
        std::snprintf(b->error, sizeof b->error,
                      "cannot allocate %.1f MB of host memory: %.1f MB are available", bytes / 1e6,
                      available / 1e6);
    }
    return p;
}

void free_memory(Backend*, void* p, size_t bytes) {
    host_free(p, bytes);
}

size_t memory_total(Backend*) {
    return host_memory_total();
}

size_t memory_available(Backend*) {
    return host_memory_available();
}

size_t weight_bytes(Backend*, const Weight* w) {
    return cpu_weight_bytes(w);
}

size_t runtime_bytes(Backend*) {
    return 0;
}

int reject_rows(Backend* b, const Weight* w, int64_t row, int64_t n_rows) {
    std::snprintf(b->error, sizeof b->error,
                  "rows %" PRId64 " to %" PRId64 " of a weight with %" PRId64
                  " rows, or an element type without a layout",
                  row, row + n_rows, w->n);
    return 1;
}

int pack(Backend* b, Weight* w, const void* src, DType src_dtype, int64_t row, int64_t n_rows) {
    return cpu_pack(w, src, src_dtype, row, n_rows, pool_of(b)) ? reject_rows(b, w, row, n_rows) : 0;
}

int fill_random(Backend* b, Weight* w, uint32_t seed, float scale) {
    return cpu_fill_random(w, seed, scale, pool_of(b)) ? reject_rows(b, w, 0, w->n) : 0;
}

int unpack(Backend* b, const Weight* w, float* dst, int64_t row, int64_t n_rows) {
    return cpu_unpack(w, dst, row, n_rows, pool_of(b)) ? reject_rows(b, w, row, n_rows) : 0;
}

int copy_bytes(Backend*, void* dst, const void* src, size_t bytes) {
    std::memcpy(dst, src, bytes);
    return 0;
}

DType activation_dtype(Backend*, DType) {
    return DType::f32;
}

// The largest scratch of any op: ops run one after the other.
size_t workspace_bytes(Backend* b, const OpCall* calls, int32_t n_calls, const KvCacheView* kv,
                       const StepLimits* limits) {
    size_t most = 0;
    for (int32_t i = 0; i < n_calls; ++i) {
        const OpCall& c = calls[i];
        size_t bytes = 0;
        if (c.op == Op::linear || c.op == Op::linear_silu_mul || c.op == Op::linear_rope_kv_write) {
            const int32_t rows = c.in[0].rows == Sym::rows ? limits->max_rows : limits->max_tokens;
            bytes = gemm_scratch_bytes(c.weight[0]->dtype, rows, c.weight[0]->k, c.op == Op::linear_silu_mul,
                                       pool_threads(pool_of(b)));
        } else if (c.op == Op::attention) {
            bytes = attention_workspace_bytes(c.attrs, *limits, kv[c.attrs.group].block_size,
                                              pool_threads(pool_of(b)));
        }
        most = std::max(most, bytes);
    }
    return most;
}

int prepare(Backend* b, const OpCall* calls, int32_t n_calls, const KvCacheView* kv, const StepInput*,
            const StepLimits* limits) {
    const size_t bytes = workspace_bytes(b, calls, n_calls, kv, limits);
    try {
        pool_scratch(pool_of(b), bytes);
    } catch (const std::bad_alloc&) {
        std::snprintf(b->error, sizeof b->error, "cannot allocate %.1f MB of scratch", bytes / 1e6);
        return 1;
    }
    return 0;
}

void retire(Backend*, const StepInput*) {}

int stage(Backend*, StepInput* dst, const StepInput* src, const StepLimits* limits) {
    step_copy(dst, src, *limits);
    return 0;
}

// Where block `block` keeps the keys (part 0) or values (1) of a layer: a block of either tier.
char* place_of(const KvCacheView& kv, int64_t block, int part, int64_t layer, size_t bytes) {
    if (block < kv.n_blocks) {
        return static_cast<char*>(part ? kv.v : kv.k) + (layer * kv.n_blocks + block) * bytes;
    }
    return static_cast<char*>(kv.host) + (((block - kv.n_blocks) * 2 + part) * kv.n_layers + layer) * bytes;
}

// Keys and values of all layers of the group.
void copy_block(const KvCacheView& kv, const BlockCopy& copy) {
    const size_t bytes =
        size_t(kv.n_kv_heads) * kv.block_size * kv.head_dim * dtype_bytes(static_cast<DType>(kv.dtype));
    for (int part : {0, 1}) {
        for (int64_t l = 0; l < kv.n_layers; ++l) {
            std::memcpy(place_of(kv, copy.dst, part, l, bytes), place_of(kv, copy.src, part, l, bytes),
                        bytes);
        }
    }
}

int submit(Backend* b, const OpCall* calls, int32_t n_calls, const KvCacheView* kv, StepInput* step,
           uint64_t* ticket) {
    for (int32_t i = 0; i < step->n_copies; ++i) copy_block(kv[step->copies[i].group], step->copies[i]);
    for (int32_t t = 0; t < step->n_tokens; ++t) {
        int32_t& id = step->token_ids[t];
        if (id < 0) id = step->last_token[-1 - id];
    }
    const RunContext ctx{step, kv, b->device};
    for (int32_t i = 0; i < n_calls; ++i) calls[i].fn(calls[i], ctx);
    *ticket = step->step_id;
    return 0;
}

int wait(Backend*, uint64_t) {
    return 0;
}  // submit() returned when the step was done

void* alloc_host(Backend* b, size_t bytes) {
    return alloc(b, bytes);
}

void destroy(Backend* b) {
    pool_destroy(pool_of(b));
    delete b;
}

}  // namespace

Backend* cpu_backend_create(const BackendOptions& options) {
    auto* b = new Backend{};
    b->name = "cpu";
    b->device = pool_create(options.n_threads);
    std::snprintf(b->description, sizeof b->description, "%s, %d threads", isa_name(isa()),
                  pool_threads(pool_of(b)));
    b->find = find;
    b->describe = describe;
    b->alloc = alloc;
    b->free = free_memory;
    b->memory_total = memory_total;
    b->memory_available = memory_available;
    b->runtime_bytes = runtime_bytes;
    b->weight_bytes = weight_bytes;
    b->pack = pack;
    b->fill_random = fill_random;
    b->unpack = unpack;
    b->write = copy_bytes;
    b->read = copy_bytes;
    b->activation_dtype = activation_dtype;
    b->workspace_bytes = workspace_bytes;
    b->prepare = prepare;
    b->stage = stage;
    b->submit = submit;
    b->wait = wait;
    b->alloc_host = alloc_host;
    b->free_host = free_memory;
    b->destroy = destroy;
    b->retire = retire;
    return b;
}

}  // namespace rvllm
