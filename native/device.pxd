"""A backend by name, and the capacities of its steps."""
from rvllm._native.core cimport Backend, SamplerLimits, StepLimits


cdef class Device:
    cdef Backend* ptr


cdef class Limits:
    cdef StepLimits c


cdef SamplerLimits sampler_limits_of(const StepLimits& limits, int vocab_size, int max_top, int max_len) noexcept


cdef inline size_t aligned(size_t n_bytes) noexcept nogil:
    """The bytes that a weight takes among others: each begins on a boundary of 64."""
    return (n_bytes + 63) // 64 * 64
