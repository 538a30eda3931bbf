// The one seam between the engine and hardware. A backend is a struct of functions with a plain C
// calling convention, so that it may come out of a shared library found at run time.
//
// Errors: functions that can fail return nonzero and leave a sentence in `error`.
// Threads: all calls come from one thread at a time; find() and the *_bytes() are pure.
#pragma once
#include "op.h"
#include "request.h"

namespace rvllm {

// What the choice of a kernel may depend on; nothing else. Pure: same key, same kernel.
struct KernelKey {
    Op op;
    DType in;             // first input (embed: the table's output type is `out`)
    DType out;            // first output
    DType weight;         // element type of the first weight; f32 when there is none
    WeightFormat format;  // of the first weight
    DType kv;             // cache element type
    Attrs attrs;
    int64_t n, k;  // shape of the first weight
};

struct Kernel {
    KernelFn fn = nullptr;  // nullptr: this backend has no kernel for the key
    const char* name = "";  // as printed by `rvllm plan`; where there is none: why, or ""
};

// CUDA: whose kernels compute the products, and so the layout of the weights.
enum class GemmStrategy : uint8_t {
    cutlass,  // this library's own; the name is vLLM's
    cublas,   // cuBLASLt's
    hybrid,   // sm_90: this library's own for few tokens; cuBLASLt's for the rest
};

// How a backend is made.
struct BackendOptions {
    int32_t n_threads = 0;         // of the CPU; 0: from the affinity mask and the cgroup quota
    bool batch_invariant = false;  // a row's bits never depend on its batch, whatever that costs
    // CUDA: plan for a GPU that is not here. The backend then answers find() and the *_bytes(), no more.
    int32_t plan_arch = 0;     // 90 for sm_90; 0: the GPU that is here
    uint64_t plan_memory = 0;  // its bytes
    GemmStrategy gemm_strategy = GemmStrategy::cutlass;
    const char* cublas_library = nullptr;  // file of cuBLASLt, for the strategies that need it
};

// What a request may bring to a sampler on a device, which keeps it in arrays; the front door refuses more.
constexpr int kMaxLogitBias = 1024;      // entries of logit_bias
constexpr int kMaxBadWordTokens = 2048;  // tokens of all bad_words together
constexpr int kMaxEndTokens = 256;       // stop tokens, with the model's own

// Capacities of the sampler of a bound plan.
struct SamplerLimits {
    int32_t max_slots = 0;  // running sequences
    int32_t max_rows = 0;   // SampleRows of a step
    int32_t vocab_size = 0;
    int32_t max_top = 0;  // alternatives of a log-probability
    int32_t max_len = 0;  // tokens of a sequence
};

struct Backend {
    const char* name;       // "cpu", "cuda"
    char description[128];  // the hardware, in words
    void* self;
    void* device;  // handed to kernels as RunContext::device
    char error[512];

    Kernel (*find)(Backend*, const KernelKey*);
    // Writes how that kernel runs `rows` rows, where that varies; else nothing.
    void (*describe)(Backend*, const KernelKey*, int32_t rows, char* text, size_t size);

    // Memory of the backend. Zeroed. alloc() returns nullptr and sets error when it does not fit.
    void* (*alloc)(Backend*, size_t bytes);
    void (*free)(Backend*, void* p, size_t bytes);
    size_t (*memory_total)(Backend*);
    size_t (*memory_available)(Backend*);
    // Of these bytes, what the driver takes for itself: context, kernels, captured steps; an estimate.
    size_t (*runtime_bytes)(Backend*);

    // Resident bytes of a weight, from its format, row order, dtype and shape alone.
    size_t (*weight_bytes)(Backend*, const Weight*);
    // Converts rows [row, row + n_rows) of a weight from a row-major [n_rows, k] host array of
    // `src_dtype` into the resident layout (w->data is allocated). Vectors: k == 1.
    int (*pack)(Backend*, Weight* w, const void* src, DType src_dtype, int64_t row, int64_t n_rows);
    // Fills a dense weight with nearly normal values of standard deviation `scale`: random weights for
    // capacity tests are made where they live. The same values for any number of threads.
    int (*fill_random)(Backend*, Weight* w, uint32_t seed, float scale);
    // The inverse of pack, for tests: rows [row, row + n_rows) as row-major float32.
    int (*unpack)(Backend*, const Weight* w, float* dst, int64_t row, int64_t n_rows);

    // Host memory to backend memory and back, finished on return; between steps only.
    int (*write)(Backend*, void* dst, const void* src, size_t bytes);
    int (*read)(Backend*, void* dst, const void* src, size_t bytes);

    // Activation type for a model whose matrices are stored as `weights`; logits and the rope table
    // are always float32.
    DType (*activation_dtype)(Backend*, DType weights);

    // Bytes that prepare() takes, and steps of these calls use besides their operands. The calls need no
    // memory yet: only ops, attributes and shapes are read.
    size_t (*workspace_bytes)(Backend*, const OpCall* calls, int32_t n_calls, const KvCacheView* kv,
                              const StepLimits* limits);
    // Makes ready what steps of these calls need, up to `limits`; `step` is the StepInput they are
    // bound to. After it a step allocates nothing.
    int (*prepare)(Backend*, const OpCall* calls, int32_t n_calls, const KvCacheView* kv,
                   const StepInput* step, const StepLimits* limits);
    // Brings what the forward reads of a step that lies in host memory to the arrays of `dst`.
    // `src` may be written again on return. submit() follows.
    int (*stage)(Backend*, StepInput* dst, const StepInput* src, const StepLimits* limits);
    // Runs the staged step: block copies, fed-back tokens, then the ops in order. Returns at once with a
    // ticket where the hardware is asynchronous; wait() blocks until that step is done.
    int (*submit)(Backend*, const OpCall* calls, int32_t n_calls, const KvCacheView* kv, StepInput* step,
                  uint64_t* ticket);
    int (*wait)(Backend*, uint64_t ticket);

    // The sampler, where logits stay in the backend's memory; all of these are null where they lie in host
    // memory and the engine's own sampler (sampler.pyx) draws. Both are one algorithm: equal logits, equal
    // draws.
    //
    // Bytes that prepare_sampler() allocates.
    size_t (*sampler_bytes)(Backend*, const SamplerLimits* limits);
    // Makes the slots' state and what draws need, for steps bound to `step` (after prepare() of it); also
    // sets step->last_token. `logits`: [max_rows of the plan][logits_stride] float32.
    int (*prepare_sampler)(Backend*, StepInput* step, const float* logits, int64_t logits_stride,
                           const SamplerLimits* limits);
    // (Re)initialises slot seq->slot from the sequence's parameters and tokens, in the order of the submitted
    // steps; `seq` may change again on return.
    int (*admit)(Backend*, const StepInput* step, const Sequence* seq);
    // Draws for the submitted step: serves src->sample_rows (host memory) and writes last_token. `results`
    // [n_sample_rows] and `tops` [n_sample_rows][max_top], from alloc_host(), are filled once wait(ticket)
    // has returned.
    int (*sample)(Backend*, StepInput* step, const StepInput* src, SampleResult* results, TopToken* tops,
                  uint64_t* ticket);
    // Host memory that the backend reads and writes while the caller goes on. Zeroed; nullptr: `error` is
    // set.
    void* (*alloc_host)(Backend*, size_t bytes);
    void (*free_host)(Backend*, void* p, size_t bytes);

    // Measured choices of kernels; both are null where there is nothing to choose.
    //
    // Measures in which other ways the kernel of `key` could run up to `max_rows` rows, and writes a line to
    // `text` for each that is faster than what find() chose. Takes about a second; allocates and frees
    // memory.
    int (*tune)(Backend*, const KernelKey* key, int32_t max_rows, char* text, size_t size);
    // Takes all the lines that tune() wrote into use, before workspace_bytes(). Nonzero: nothing has changed.
    int (*use_choices)(Backend*, const char* text);

    void (*destroy)(Backend*);
    // Drops what prepare() made for `step`; the memory that it is bound to may go then.
    void (*retire)(Backend*, const StepInput* step);
};

// The CPU backend: always there.
Backend* cpu_backend_create(const BackendOptions& options);

}  // namespace rvllm
