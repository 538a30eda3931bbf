// The CUDA device as a Backend: device memory, the table of kernels, steps on one stream.
//
// submit() returns when the step is on its way; wait() blocks until it is done. Decode steps run as
// captured graphs, others launch op by op.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gemm/cublas.h"
#include "gemm/tune.h"
#include "gpu.h"
#include "kernels.h"
#include "ops/linear.h"
#include "prepared.h"
#include "sampling/sampler.h"
#include "weights.h"

namespace rvllm::cuda {
namespace {

constexpr size_t kRuntimeBytes = 600 << 20;
constexpr size_t kCublasBytes = 400 << 20;  // all of its kernels, besides
constexpr int kTickets = 8;                 // submit() and sample() calls that may be waited for at a time

struct Cuda {
    Backend backend{};
    Context context;
    std::unique_ptr<CublasLt> cublas;  // context.cublas
    Upload upload;
    std::vector<std::unique_ptr<Prepared>> prepared;
    std::unique_ptr<DeviceSampler> sampler;  // of one of them
    cudaEvent_t done[kTickets] = {};
    cudaEvent_t moved[kTickets] = {};  // what the step moves between the tiers
    uint64_t n_submitted = 0;
    size_t plan_memory = 0;  // of a GPU that is not here
};

Cuda& self(Backend* b) {
    return *static_cast<Cuda*>(b->self);
}

int failed(Backend* b, const char* what, cudaError_t e) {
    if (e == cudaSuccess) return 0;
    std::snprintf(b->error, sizeof b->error, "%s: %s", what, cudaGetErrorString(e));
    return 1;
}

using FindFn = Kernel (*)(const KernelKey&);
constexpr FindFn kFind[] = {
#define OP(name, inputs, weights, outputs, attrs) find_##name,
#include "ops.def"
#undef OP
};

Kernel find(Backend* b, const KernelKey* key) {
    const Context& c = self(b).context;
    if (c.attention_device.arch < 80 && (key->in == DType::bf16 || key->out == DType::bf16))
        return {nullptr, "bf16 needs compute capability 8.0: use f16"};
    Kernel kernel = kFind[static_cast<int>(key->op)](*key);
    if (key->op == Op::attention && kernel.fn) {
        const AttentionDesc desc = choose_attention(c.attention_device, key->in, key->attrs.head_dim);
        if (desc.kernel == AttentionKernel::none) return {nullptr, desc.refusal};
        kernel.name = desc.kernel == AttentionKernel::sm90 ? "attention.sm90" : "attention.mma";
    }
    return kernel;
}

LinearShape shape_of(const Context& c, const KernelKey& key, int32_t rows) {
    return {rows,       static_cast<int32_t>(key.n), static_cast<int32_t>(key.k),
            key.weight, c.batch_invariant,           c.gemm_strategy};
}

void describe(Backend* b, const KernelKey* key, int32_t rows, char* text, size_t size) {
    if (size == 0) return;
    text[0] = 0;
    if (key->format != WeightFormat::dense || key->op == Op::embed) return;
    const Context& c = self(b).context;
    describe_linear(choose_linear(c.device, shape_of(c, *key, rows), &c.linear_table), text, size);
}

size_t runtime_bytes(Backend* b) {
    const bool own = self(b).context.gemm_strategy == GemmStrategy::cutlass;
    return kRuntimeBytes + (own ? 0 : kCublasBytes);
}

size_t memory_total(Backend* b) {
    if (self(b).plan_memory) return self(b).plan_memory;
    size_t available = 0, total = 0;
    return cudaMemGetInfo(&available, &total) == cudaSuccess ? total : 0;
}

size_t memory_available(Backend* b) {
    if (const size_t planned = self(b).plan_memory) return planned - std::min(planned, runtime_bytes(b));
    size_t available = 0, total = 0;
    return cudaMemGetInfo(&available, &total) == cudaSuccess ? available : 0;
}

void* alloc(Backend* b, size_t bytes) {
    const cudaStream_t stream = self(b).context.stream;
    void* p = nullptr;
    cudaError_t e = alloc_zeroed(&p, bytes, stream);
    if (!p) {
        cudaGetLastError();
        std::snprintf(b->error, sizeof b->error,
                      "cannot allocate %.1f MB of device memory: %.1f MB are available", bytes / 1e6,
                      memory_available(b) / 1e6);
        return nullptr;
    }
    if (e == cudaSuccess) e = cudaStreamSynchronize(stream);
    if (!failed(b, "cannot clear device memory", e)) return p;
    cudaFree(p);
    return nullptr;
}

void free_memory(Backend*, void* p, size_t) {
    cudaFree(p);
}

size_t weight_bytes(Backend* b, const Weight* w) {
    return resident_bytes(self(b).context, *w);
}

int pack(Backend* b, Weight* w, const void* src, DType src_dtype, int64_t row, int64_t n_rows) {
    Cuda& c = self(b);
    return failed(b, "cannot pack a weight",
                  upload_rows(c.context, c.upload, *w, src, src_dtype, row, n_rows));
}

int fill_random(Backend* b, Weight* w, uint32_t seed, float scale) {
    Cuda& c = self(b);
    return failed(b, "cannot fill a weight", random_rows(c.context, c.upload, *w, seed, scale));
}

int unpack(Backend* b, const Weight* w, float* dst, int64_t row, int64_t n_rows) {
    Cuda& c = self(b);
    return failed(b, "cannot unpack a weight", download_rows(c.context, c.upload, *w, dst, row, n_rows));
}

int copy_bytes(Backend* b, void* dst, const void* src, size_t bytes, cudaMemcpyKind kind) {
    const cudaStream_t stream = self(b).context.stream;
    cudaError_t e = cudaMemcpyAsync(dst, src, bytes, kind, stream);
    if (e == cudaSuccess) e = cudaStreamSynchronize(stream);
    return failed(b, "cannot copy memory", e);
}

int write(Backend* b, void* dst, const void* src, size_t bytes) {
    return copy_bytes(b, dst, src, bytes, cudaMemcpyHostToDevice);
}

int read(Backend* b, void* dst, const void* src, size_t bytes) {
    return copy_bytes(b, dst, src, bytes, cudaMemcpyDeviceToHost);
}

DType activation_dtype(Backend*, DType weights) {
    return weights;
}

Prepared* find_prepared(Backend* b, const StepInput* step) {
    for (const auto& p : self(b).prepared) {
        if (p->step == step) return p.get();
    }
    return nullptr;
}

Prepared* prepared_for(Backend* b, const StepInput* step) {
    Prepared* p = find_prepared(b, step);
    if (!p) std::snprintf(b->error, sizeof b->error, "the step's input was not prepared");
    return p;
}

void retire(Backend* b, const StepInput* step) {
    auto& all = self(b).prepared;
    cudaStreamSynchronize(self(b).context.stream);
    all.erase(std::remove_if(all.begin(), all.end(), [&](const auto& p) { return p->step == step; }),
              all.end());
    if (self(b).sampler && self(b).sampler->step() == step) self(b).sampler.reset();
}

size_t workspace_bytes(Backend* b, const OpCall* calls, int32_t n_calls, const KvCacheView* kv,
                       const StepLimits* limits) {
    const Context& c = self(b).context;
    return prepared_bytes(c, calls, n_calls, kv, *limits) + linear_workspace_bytes(c.device) +
           upload_bytes() + (c.gemm_strategy == GemmStrategy::cutlass ? 0 : CublasLt::workspace_bytes());
}

int prepare(Backend* b, const OpCall* calls, int32_t n_calls, const KvCacheView* kv, const StepInput* step,
            const StepLimits* limits) {
    Cuda& c = self(b);
    retire(b, step);
    std::unique_ptr<Prepared> p(
        prepare_steps(c.context, calls, n_calls, kv, step, *limits, b->error, sizeof b->error));
    if (!p) return 1;
    c.context.linear_scratch = p->linear_scratch;
    if (const char* wrong = prepare_linears(c.context, calls, n_calls, *limits)) {
        std::snprintf(b->error, sizeof b->error, "%s", wrong);
        return 1;
    }
    const bool is_model = n_calls > 0 && calls[n_calls - 1].op == Op::linear && calls[0].op == Op::embed;
    // Captured steps are decodes in the decode kernel, which batch-invariant attention does without.
    if (is_model && !c.context.batch_invariant &&
        failed(b, "cannot capture decode steps", capture_decodes(c.context, *p, calls, n_calls, kv))) {
        return 1;
    }
    c.prepared.push_back(std::move(p));
    return 0;
}

int stage(Backend* b, StepInput* dst, const StepInput* src, const StepLimits*) {
    Prepared* p = prepared_for(b, dst);
    return p == nullptr || failed(b, "cannot stage a step", stage_step(self(b).context, *p, dst, *src));
}

// p: null for a sampler without a plan, which moves no blocks.
int record(Backend* b, Prepared* p, uint64_t* ticket) {
    Cuda& c = self(b);
    *ticket = c.n_submitted++;
    cudaError_t e = cudaEventRecord(c.done[*ticket % kTickets], c.context.stream);
    if (e == cudaSuccess && p) e = p->moves.record(c.moved[*ticket % kTickets]);
    return failed(b, "cannot record a step", e);
}

int submit(Backend* b, const OpCall* calls, int32_t n_calls, const KvCacheView* kv, StepInput* step,
           uint64_t* ticket) {
    Cuda& c = self(b);
    Context& context = c.context;
    Prepared* p = prepared_for(b, step);
    if (p == nullptr) return 1;
    if (failed(b, "cannot copy cache blocks", p->moves.launch(kv, step->copies, context.stream))) return 1;
    if (p->bucket) {
        const cudaError_t e = cudaGraphLaunch(p->bucket->graph, context.stream);
        if (failed(b, "cannot launch a decode step", e)) return 1;
    } else {
        std::copy(std::begin(p->attention), std::end(p->attention), context.attention);
        context.linear_scratch = p->linear_scratch;
        context.error = cudaSuccess;
        launch_calls(context, calls, n_calls, kv, *step);
        if (failed(b, context.failed, context.error)) return 1;
    }
    return record(b, p, ticket);
}

int wait(Backend* b, uint64_t ticket) {
    const Cuda& c = self(b);
    cudaError_t e = cudaEventSynchronize(c.done[ticket % kTickets]);
    if (e == cudaSuccess) e = cudaEventSynchronize(c.moved[ticket % kTickets]);
    return failed(b, "a step failed", e);
}

size_t sampler_bytes(Backend*, const SamplerLimits* limits) {
    return DeviceSampler::bytes(*limits);
}

int prepare_sampler(Backend* b, StepInput* step, const float* logits, int64_t logits_stride,
                    const SamplerLimits* limits) {
    Cuda& c = self(b);
    destroy_upload(c.upload);  // weights are in place by now; an upload would make its buffers again
    c.sampler.reset();
    c.sampler =
        DeviceSampler::create(c.context, step, logits, logits_stride, *limits, b->error, sizeof b->error);
    if (!c.sampler) return 1;
    step->last_token = c.sampler->last_token();
    return 0;
}

DeviceSampler* sampler_of(Backend* b, const StepInput* step) {
    DeviceSampler* s = self(b).sampler.get();
    if (s && s->step() == step) return s;
    std::snprintf(b->error, sizeof b->error, "the step has no sampler");
    return nullptr;
}

int admit(Backend* b, const StepInput* step, const Sequence* seq) {
    DeviceSampler* s = sampler_of(b, step);
    if (!s) return 1;
    const char* refused = s->admit(*seq);
    if (refused) std::snprintf(b->error, sizeof b->error, "%s", refused);
    return refused != nullptr;
}

int sample(Backend* b, StepInput* step, const StepInput* src, SampleResult* results, TopToken* tops,
           uint64_t* ticket) {
    DeviceSampler* s = sampler_of(b, step);
    if (!s || failed(b, "cannot launch the sampler", s->sample(*src, results, tops))) return 1;
    return record(b, find_prepared(b, step), ticket);
}

void* alloc_host(Backend* b, size_t bytes) {
    void* p = nullptr;
    if (failed(b, "cannot allocate pinned memory", cudaHostAlloc(&p, bytes, 0))) return nullptr;
    std::memset(p, 0, bytes);
    return p;
}

void free_host(Backend*, void* p, size_t) {
    cudaFreeHost(p);
}

int tune(Backend* b, const KernelKey* key, int32_t max_rows, char* text, size_t size) {
    Context& c = self(b).context;
    std::string lines;
    const cudaError_t e = tune_linear(c, shape_of(c, *key, max_rows), key->op, key->out, &lines);
    std::snprintf(text, size, "%s", lines.c_str());
    return failed(b, "cannot measure the kernels of a product", e);
}

int use_choices(Backend* b, const char* text) {
    Context& c = self(b).context;
    std::string wrong;
    if (c.linear_table.parse(text, c.device, c.gemm_strategy, &wrong)) return 0;
    std::snprintf(b->error, sizeof b->error, "%s", wrong.c_str());
    return 1;
}

void destroy(Backend* b) {
    Cuda* c = &self(b);
    cudaStreamSynchronize(c->context.stream);
    c->sampler.reset();
    c->prepared.clear();
    c->cublas.reset();
    destroy_upload(c->upload);
    for (int i = 0; i < kTickets; ++i) {
        if (c->done[i]) cudaEventDestroy(c->done[i]);
        if (c->moved[i]) cudaEventDestroy(c->moved[i]);
    }
    cudaFree(c->context.linear_workspace);
    if (c->context.stream) cudaStreamDestroy(c->context.stream);
    delete c;
}

// Takes the device into use; the first error.
cudaError_t open_device(Cuda& c) {
    const size_t workspace_bytes = linear_workspace_bytes(c.context.device);
    cudaError_t e = cudaStreamCreateWithFlags(&c.context.stream, cudaStreamNonBlocking);
    if (e == cudaSuccess) e = alloc_zeroed(&c.context.linear_workspace, workspace_bytes, c.context.stream);
    for (int i = 0; i < kTickets; ++i) {
        if (e == cudaSuccess) e = cudaEventCreateWithFlags(&c.done[i], cudaEventDisableTiming);
        if (e == cudaSuccess) e = cudaEventCreateWithFlags(&c.moved[i], cudaEventDisableTiming);
    }
    return e;
}

}  // namespace
}  // namespace rvllm::cuda

extern "C" __attribute__((visibility("default"))) rvllm::Backend* rvllm_cuda_backend_create(
    const rvllm::BackendOptions* options, char* error, int error_size) {
    using namespace rvllm::cuda;
    auto c = std::make_unique<Cuda>();
    rvllm::Backend& b = c->backend;
    c->context.batch_invariant = options->batch_invariant;
    c->context.gemm_strategy = options->gemm_strategy;
    if (options->plan_arch) {
        if (!planned_gpu(options->plan_arch, &c->context)) {
            std::snprintf(error, error_size, "there are no kernels for sm_%d", options->plan_arch);
            return nullptr;
        }
        c->plan_memory = options->plan_memory;
        std::snprintf(b.description, sizeof b.description, "sm_%d, planned for", options->plan_arch);
    } else {
        constexpr int device = 0;
        setenv("CUDA_MODULE_LOADING", "EAGER", 0);  // every kernel now: nothing is allocated once steps run
        cudaDeviceProp properties;
        if (unusable(device, &properties, error, error_size)) return nullptr;
        const int native = properties.major * 10 + properties.minor;
        cudaError_t e = cudaSetDevice(device);
        if (e == cudaSuccess) e = find_kernels(&c->context, properties);
        if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorInvalidDeviceFunction) {
            std::snprintf(error, error_size,
                          "librvllm_cuda.so has no kernels for CUDA device %d (%s): build it with "
                          "RVLLM_CUDA_ARCHS=%d%s",
                          device, properties.name, native, native == 90 ? "a" : "");
            return nullptr;
        }
        if (e == cudaSuccess) e = open_device(*c);
        if (e != cudaSuccess) {
            std::snprintf(error, error_size, "CUDA device %d (%s) cannot be used: %s", device,
                          properties.name, cudaGetErrorString(e));
            return nullptr;
        }
        if (options->gemm_strategy != rvllm::GemmStrategy::cutlass) {
            c->cublas = CublasLt::open(options->cublas_library, error, error_size);
            if (!c->cublas) return nullptr;
            c->context.cublas = c->cublas.get();
        }
        describe_gpu(c->context, properties, b.description, sizeof b.description);
    }
    b.name = "cuda";
    b.self = c.get();
    b.device = &c->context;
    b.find = find;
    b.describe = describe;
    b.alloc = alloc;
    b.free = free_memory;
    b.memory_total = memory_total;
    b.memory_available = memory_available;
    b.runtime_bytes = runtime_bytes;
    b.weight_bytes = weight_bytes;
    b.pack = pack;
    b.fill_random = fill_random;
    b.unpack = unpack;
    b.write = write;
    b.read = read;
    b.activation_dtype = activation_dtype;
    b.workspace_bytes = workspace_bytes;
    b.prepare = prepare;
    b.retire = retire;
    b.stage = stage;
    b.submit = submit;
    b.wait = wait;
    b.sampler_bytes = sampler_bytes;
    b.prepare_sampler = prepare_sampler;
    b.admit = admit;
    b.sample = sample;
    b.alloc_host = alloc_host;
    b.free_host = free_host;
    b.tune = tune;
    b.use_choices = use_choices;
    b.destroy = destroy;
    return &c.release()->backend;
}
