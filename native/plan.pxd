"""A traced plan on the native side (plan.h)."""
from libc.stdint cimport int32_t, int64_t, uint8_t
from libcpp.vector cimport vector

from rvllm._native.core cimport (
    Attrs, Backend, DType, KernelKey, KvCacheView, Op, OpCall, StepInput, StepLimits, Sym, Weight,
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


cdef class NativePlan:
    cdef Plan c


cdef void describe_kv(KvCacheView* view, DType dtype, int n_layers, int n_kv_heads, int head_dim, int n_blocks,
                      int block_size) noexcept
