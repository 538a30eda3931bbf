"""A plan with its memory and its kernels: what an engine runs."""
from libc.stdint cimport int64_t
from libcpp.vector cimport vector

from rvllm._native.core cimport Backend, KvCacheView, OpCall, SamplerLimits, StepInput, StepLimits
from rvllm._native.device cimport Device
from rvllm._native.plan cimport Plan


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
