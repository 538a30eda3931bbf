"""Declarations of the C++ headers for the Cython modules. Layout and ownership: see the headers."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.utility cimport pair
from libcpp.vector cimport vector


cdef extern from "tensor.h" namespace "rvllm" nogil:
    cpdef enum class DType(uint8_t):
        f32
        f16
        bf16
        i32

    cpdef enum class Sym(uint8_t):
        one
        tokens
        seqs
        rows

    cdef struct Operand:
        void* data
        int64_t row_stride
        int32_t cols
        DType dtype
        Sym rows

    size_t dtype_bytes(DType t)


cdef extern from "weight.h" namespace "rvllm" nogil:
    cpdef enum class WeightFormat(uint8_t):
        vector
        dense

    cpdef enum class RowOrder(uint8_t):
        plain
        gate_up

    cdef cppclass Weight:
        Weight()
        WeightFormat format
        RowOrder order
        DType dtype
        int64_t n
        int64_t k
        void* data
        size_t bytes


cdef extern from "step.h" namespace "rvllm" nogil:
    cdef int kMaxCacheGroups
    cdef int kNoSlot

    cdef cppclass KvCacheView:
        KvCacheView()
        void* k
        void* v
        int32_t n_blocks
        int32_t block_size
        int32_t n_kv_heads
        int32_t head_dim
        int32_t dtype
        int32_t n_layers
        void* host
        int32_t n_host_blocks

    cdef cppclass BlockTables:
        int32_t* start
        int32_t* blocks

    cdef enum class RowKind(uint8_t):
        sample
        score

    cdef struct SampleRow:
        int32_t logit_row
        int32_t slot
        int32_t target
        int32_t n_top
        uint32_t token_index
        RowKind kind
        uint8_t suppress_stop
        void* seq

    cdef int kMaxLateReturns

    cdef struct BlockCopy:
        int32_t group
        int32_t src
        int32_t dst

    cdef cppclass StepInput:
        StepInput()
        int32_t n_tokens
        int32_t n_seqs
        int32_t n_rows
        int32_t n_sample_rows
        int32_t n_copies
        int32_t n_admitted
        int32_t max_query_len
        int32_t max_kv_len
        int32_t returns_late
        uint64_t step_id
        int32_t* token_ids
        int32_t* positions
        int32_t** slots
        int32_t* query_start
        int32_t* kv_len
        int32_t* logit_rows
        BlockTables* tables
        SampleRow* sample_rows
        BlockCopy* copies
        void** admitted
        int32_t* last_token

    cdef cppclass StepLimits:
        StepLimits()
        int32_t max_tokens
        int32_t max_seqs
        int32_t max_rows
        int32_t max_table_entries
        int32_t max_moves
        int32_t n_groups

    size_t step_input_bytes(const StepLimits& limits)
    void step_input_layout(StepInput* step, const StepLimits& limits, void* memory)
    void step_copy(StepInput* dst, const StepInput* src, const StepLimits& limits)


cdef extern from "op.h" namespace "rvllm" nogil:
    cdef enum class Op(uint8_t):
        count

    cdef cppclass Attrs:
        Attrs()
        int32_t layer
        int32_t group
        int32_t n_heads
        int32_t n_kv_heads
        int32_t head_dim
        int32_t rotary_dim
        float eps
        float softmax_scale
        float rope_scale

    cdef cppclass RunContext:
        const StepInput* step
        const KvCacheView* kv
        void* device

    ctypedef void (*KernelFn)(const OpCall& call, const RunContext& ctx) noexcept

    cdef cppclass OpCall:
        OpCall()
        Op op
        Operand* in_ "in"
        Operand* out
        const Weight** weight
        Attrs attrs
        KernelFn fn
        const char* kernel_name

    cdef struct OpInfo:
        const char* name
        const char* inputs
        const char* weights
        const char* outputs
        const char* attrs

    const OpInfo& op_info(Op op)
    const char* op_name(Op op)


cdef extern from "request.h" namespace "rvllm" nogil:
    cdef cppclass SamplingParams:
        SamplingParams()
        float temperature
        float top_p
        float min_p
        float repetition_penalty
        float frequency_penalty
        float presence_penalty
        int32_t top_k
        uint64_t seed
        int32_t n
        int32_t max_tokens
        int32_t min_tokens
        int32_t n_logprobs
        int32_t n_prompt_logprobs
        cbool ignore_eos
        vector[int32_t] eos_token_ids
        vector[int32_t] stop_token_ids
        vector[pair[int32_t, float]] logit_bias
        vector[int32_t] allowed_token_ids
        vector[vector[int32_t]] bad_words

    cdef enum class FinishReason(uint8_t):
        none
        stop
        length
        abort
        error
        deadline

    cdef enum class SeqState(uint8_t):
        waiting
        running
        preempted
        finished

    cdef cppclass Sequence:
        Sequence()
        Request* request
        int32_t choice
        SeqState state
        FinishReason finish
        vector[int32_t] tokens
        int32_t n_prompt
        int32_t n_computed
        int32_t n_in_flight
        int32_t n_cached
        int32_t slot
        vector[int32_t] blocks
        int32_t n_promised
        int32_t n_writable
        int32_t n_hashed
        uint64_t last_step
        uint64_t order
        int32_t priority
        int32_t max_len
        int32_t n_scored
        int32_t queue_pos
        cbool releasing
        int32_t n_output()

    cdef cppclass Request:
        Request()
        uint64_t id
        int32_t priority
        int64_t arrival_us
        int64_t deadline_us
        uint64_t extras_hash
        SamplingParams params
        vector[Sequence] sequences
        int32_t n_unfinished
        cbool started
        int32_t n_releasing

    cdef cppclass SampleResult:
        SampleResult()
        int32_t token
        int32_t rank
        float logprob
        int32_t n_top
        uint8_t failed

    cdef struct TopToken:
        int32_t token
        float logprob

    cdef enum class EventKind(uint8_t):
        started
        token
        prompt_logprob
        finished

    cdef cppclass Event:
        Event()
        uint64_t request_id
        int64_t t_us
        int32_t choice
        EventKind kind
        FinishReason finish
        cbool has_logprob
        int32_t token
        int32_t index
        float logprob
        int32_t rank
        uint32_t top_start
        uint32_t n_top

    cdef cppclass Outbox:
        Outbox()
        vector[Event] events
        vector[TopToken] tops


cdef extern from "backend.h" namespace "rvllm" nogil:
    cdef cppclass KernelKey:
        KernelKey()
        Op op
        DType in_ "in"
        DType out
        DType weight
        WeightFormat format
        DType kv
        Attrs attrs
        int64_t n
        int64_t k

    cdef cppclass Kernel:
        KernelFn fn
        const char* name

    const int kMaxLogitBias
    const int kMaxBadWordTokens
    const int kMaxEndTokens

    cdef enum class GemmStrategy(uint8_t):
        cutlass
        cublas
        hybrid

    cdef cppclass BackendOptions:
        BackendOptions()
        int32_t n_threads
        cbool batch_invariant
        int32_t plan_arch
        uint64_t plan_memory
        GemmStrategy gemm_strategy
        const char* cublas_library

    cdef cppclass SamplerLimits:
        SamplerLimits()
        int32_t max_slots
        int32_t max_rows
        int32_t vocab_size
        int32_t max_top
        int32_t max_len

    cdef cppclass Backend:
        const char* name
        void* self
        void* device
        char* error
        const char* description
        Kernel (*find)(Backend*, const KernelKey*) noexcept
        void (*describe)(Backend*, const KernelKey*, int32_t, char*, size_t) noexcept
        void* (*alloc)(Backend*, size_t) noexcept
        void (*free)(Backend*, void*, size_t) noexcept
        size_t (*memory_total)(Backend*) noexcept
        size_t (*memory_available)(Backend*) noexcept
        size_t (*runtime_bytes)(Backend*) noexcept
        size_t (*weight_bytes)(Backend*, const Weight*) noexcept
        int (*pack)(Backend*, Weight*, const void*, DType, int64_t, int64_t) noexcept
        int (*fill_random)(Backend*, Weight*, uint32_t, float) noexcept
        int (*unpack)(Backend*, const Weight*, float*, int64_t, int64_t) noexcept
        int (*write)(Backend*, void*, const void*, size_t) noexcept
        int (*read)(Backend*, void*, const void*, size_t) noexcept
        DType (*activation_dtype)(Backend*, DType) noexcept
        size_t (*workspace_bytes)(Backend*, const OpCall*, int32_t, const KvCacheView*, const StepLimits*) noexcept
        int (*prepare)(Backend*, const OpCall*, int32_t, const KvCacheView*, const StepInput*,
                       const StepLimits*) noexcept
        int (*stage)(Backend*, StepInput*, const StepInput*, const StepLimits*) noexcept
        int (*submit)(Backend*, const OpCall*, int32_t, const KvCacheView*, StepInput*,
                      uint64_t*) noexcept
        int (*wait)(Backend*, uint64_t) noexcept
        size_t (*sampler_bytes)(Backend*, const SamplerLimits*) noexcept
        int (*prepare_sampler)(Backend*, StepInput*, const float*, int64_t, const SamplerLimits*) noexcept
        int (*admit)(Backend*, const StepInput*, const Sequence*) noexcept
        int (*sample)(Backend*, StepInput*, const StepInput*, SampleResult*, TopToken*, uint64_t*) noexcept
        void* (*alloc_host)(Backend*, size_t) noexcept
        void (*free_host)(Backend*, void*, size_t) noexcept
        int (*tune)(Backend*, const KernelKey*, int32_t, char*, size_t) noexcept
        int (*use_choices)(Backend*, const char*) noexcept
        void (*destroy)(Backend*) noexcept
        void (*retire)(Backend*, const StepInput*) noexcept


cdef extern from "device_library.h" namespace "rvllm" nogil:
    Backend* backend_create(const char* name, const BackendOptions& options, char* error, int error_size)


cdef extern from "mailbox.h" namespace "rvllm" nogil:
    cdef enum CommandKind "rvllm::Command::Kind":
        command_add "rvllm::Command::add"
        command_cancel "rvllm::Command::cancel"
        command_stop "rvllm::Command::stop"

    cdef cppclass Command:
        Command()
        CommandKind kind
        Request* request
        uint64_t id
        int32_t choice

    cdef cppclass Mailbox:
        Mailbox()
        int fileno()
        void send(vector[Command]* commands)
        void receive(vector[Command]* into, cbool block)
        void publish(Outbox* box)
        void drain(Outbox* into)
        void notify()
