"""Plans on the native side: a device, a traced plan, and the plan bound to memory that an engine runs."""
from libc.stdint cimport int32_t, int64_t, uint8_t
from libcpp.vector cimport vector

from rvllm._native.core cimport (
    DType, KvCacheView, Attrs, Backend, KernelKey, Op, OpCall, SamplerLimits, StepInput, StepLimits, Sym, Weight,
)


cdef extern from "plan.h" namespace "rvllm" nogil:
    cdef enum class Source(uint8_t):
        arena

    cdef cppclass Buffer:
        Buffer()
        DType dtype
        Sym rows
        int32_t cols
        Source source
        int32_t group

    cdef cppclass View:
        View()
        int32_t buffer
        int32_t start
        int32_t cols

    cdef cppclass PlanOp:
        PlanOp()
        Op op
        View* in_ "in"
        View* out
        int32_t* weight
        Attrs attrs

    cdef cppclass Plan:
        Plan()
        vector[Buffer] buffers
        vector[PlanOp] ops
        vector[Weight] weights
        int32_t logits

    cdef cppclass Arena:
        Arena()
        vector[size_t] offset
        size_t bytes

    size_t buffer_bytes(const Buffer& b, const StepLimits& limits)
    Arena plan_arena(const Plan& plan, const StepLimits& limits)
    KernelKey kernel_key(const Plan& plan, const PlanOp& op, DType kv)
    vector[OpCall] bind_calls(const Plan& plan, Backend* backend, DType kv, const Arena& arena, char* memory,
                              const StepInput& step)


cdef class Device:
    cdef Backend* ptr


cdef class Limits:
    cdef StepLimits c


cdef class NativePlan:
    cdef Plan c


cdef class BoundPlan:
    # What an engine needs to run steps. The scheduler's StepInput is brought to device_step with
    # backend.stage(), then backend.submit(backend, calls.data(), calls.size(), kv, &device_step, ...).
    cdef Device device
    cdef Backend* backend
    cdef vector[OpCall] calls
    cdef KvCacheView[4] kv
    cdef StepLimits limits
    cdef StepInput device_step
    cdef const float* logits       # [max_rows, vocab_size] in the backend's memory, valid until the next step
    cdef int64_t logits_stride     # elements between two rows
    cdef readonly int vocab_size, block_size, n_blocks, n_host_blocks, max_model_len
    cdef readonly str kv_dtype
    # Owned memory, freed in __dealloc__.
    cdef Plan plan
    cdef char* weights_memory
    cdef size_t weights_bytes
    cdef void* step_memory
    cdef size_t step_bytes
    cdef char* arena_memory
    cdef size_t arena_bytes
    cdef size_t[4] kv_bytes        # of the keys of a group; as many for the values
    cdef size_t[4] host_bytes      # of the second tier of a group

    cdef SamplerLimits sampler_limits(self, int max_top) noexcept
