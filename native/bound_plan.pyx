"""A plan with its memory and its kernels: what an engine runs; one step of it in tests."""
from time import perf_counter

import numpy as np

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from rvllm._native.core cimport (
    Backend, DType, KvCacheView, SamplerLimits, StepInput, Weight, dtype_bytes, op_info, step_input_bytes,
    step_input_layout,
)
from rvllm._native.device cimport Device, Limits, aligned, sampler_limits_of
from rvllm._native.ops cimport dtype_of
from rvllm._native.plan cimport Arena, NativePlan, bind_calls, describe_kv, plan_arena


@cython.no_gc_clear  # __dealloc__ needs the device
cdef class BoundPlan:
    """A plan with its memory and its kernels. Weights are to be packed before the first step.

    `groups` holds (n_layers, n_kv_heads, head_dim) per cache group, each of which has `n_blocks` blocks in the device's
    memory and `n_host_blocks` in the second tier, in host memory. Raises MemoryError with the backend's sentence when
    something does not fit, ValueError when a kernel is missing.
    """

    def __cinit__(
        self, NativePlan plan, Device device, Limits limits, *, str kv_dtype, groups, int n_blocks, int block_size,
        int max_model_len, int n_host_blocks=0
    ):
        cdef size_t i
        cdef Arena arena
        cdef DType kv = dtype_of(kv_dtype)
        if len(groups) != limits.c.n_groups:
            raise ValueError(f"{len(groups)} cache groups, but limits for {limits.c.n_groups}")
        self.device = device
        self.backend = device.ptr
        self.plan = plan.c
        self.limits = limits.c
        self.kv_dtype = kv_dtype
        self.n_blocks = n_blocks
        self.n_host_blocks = n_host_blocks
        self.block_size = block_size
        self.max_model_len = max_model_len
        self.vocab_size = plan.c.buffers[plan.c.logits].cols

        allocate_weights(self)
        allocate_kv(self, kv, groups)
        arena = plan_arena(self.plan, self.limits)
        self.arena_memory = <char*>allocate(self.backend, arena.bytes)
        self.arena_bytes = arena.bytes
        self.step_bytes = step_input_bytes(self.limits)
        self.step_memory = allocate(self.backend, self.step_bytes)
        step_input_layout(&self.device_step, self.limits, self.step_memory)

        self.calls = bind_calls(self.plan, self.backend, kv, arena, self.arena_memory, self.device_step)
        for i in range(self.calls.size()):
            if self.calls[i].fn == NULL:
                raise ValueError(f"op {i} ({op_info(self.calls[i].op).name.decode()}) has no kernel")
        if self.backend.prepare(self.backend, self.calls.data(), <int32_t>self.calls.size(), self.kv,
                                &self.device_step, &self.limits) != 0:
            raise MemoryError((<const char*>self.backend.error).decode())
        self.logits = <const float*>(self.arena_memory + arena.offset[self.plan.logits])
        self.logits_stride = self.vocab_size

    def __dealloc__(self):
        cdef size_t i
        if self.backend == NULL:
            return
        self.backend.retire(self.backend, &self.device_step)
        release(self.backend, self.weights_memory, self.weights_bytes)
        for i in range(4):
            release(self.backend, self.kv[i].k, self.kv_bytes[i])
            release(self.backend, self.kv[i].v, self.kv_bytes[i])
            if self.kv[i].host != NULL:
                self.backend.free_host(self.backend, self.kv[i].host, self.host_bytes[i])
        release(self.backend, self.arena_memory, self.arena_bytes)
        release(self.backend, self.step_memory, self.step_bytes)

    cdef SamplerLimits sampler_limits(self, int max_top) noexcept:
        return sampler_limits_of(self.limits, self.vocab_size, max_top, self.max_model_len)

    @property
    def n_weights(self) -> int:
        return self.plan.weights.size()

    def memory_bytes(self) -> dict[str, int]:
        """Return what is allocated, by purpose."""
        return {
            "weights": self.weights_bytes,
            "kv_cache": 2 * (self.kv_bytes[0] + self.kv_bytes[1] + self.kv_bytes[2] + self.kv_bytes[3]),
            "host_kv_cache": self.host_bytes[0] + self.host_bytes[1] + self.host_bytes[2] + self.host_bytes[3],
            "activations": self.arena_bytes,
            "step_input": self.step_bytes,
        }

    def pack(self, size_t index, const uint8_t[::1] data, str src_dtype, int64_t row, int64_t n_rows):
        """Pack rows [row, row + n_rows) of weight `index` from row-major bytes of `src_dtype`."""
        cdef Weight* w = weight_at(self, index, row, n_rows)
        cdef DType src = dtype_of(src_dtype)
        cdef int failed
        if <size_t>data.shape[0] != <size_t>(n_rows * w.k) * dtype_bytes(src):
            raise ValueError(f"{data.shape[0]} bytes are not [{n_rows}, {w.k}] of {src_dtype}")
        if n_rows == 0:
            return
        cdef const uint8_t* source = &data[0]
        with nogil:
            failed = self.backend.pack(self.backend, w, source, src, row, n_rows)
        if failed:
            raise RuntimeError((<const char*>self.backend.error).decode())

    def fill_random(self, size_t index, uint32_t seed, float scale):
        """Fill weight `index` with nearly normal values of standard deviation `scale`."""
        cdef Weight* w = weight_at(self, index, 0, 0)
        cdef int failed
        with nogil:
            failed = self.backend.fill_random(self.backend, w, seed, scale)
        if failed:
            raise RuntimeError((<const char*>self.backend.error).decode())

    def unpack(self, size_t index):
        """Return weight `index` as a float32 array [n, k]."""
        cdef Weight* w = weight_at(self, index, 0, 0)
        cdef int failed
        array = np.empty((w.n, w.k), np.float32)
        cdef float[:, ::1] out = array
        cdef float* target = &out[0, 0]
        with nogil:
            failed = self.backend.unpack(self.backend, w, target, 0, w.n)
        if failed:
            raise RuntimeError((<const char*>self.backend.error).decode())
        return array

    def replay(self, int n) -> float:
        """Run the last step of forward() n times more, one behind the other; return the seconds of one. For benches."""
        cdef uint64_t ticket = 0
        cdef int _
        cdef int failed = 0
        started = perf_counter()
        with nogil:
            for _ in range(n):
                if not failed:
                    failed = self.backend.submit(self.backend, self.calls.data(), <int32_t>self.calls.size(), self.kv,
                                                 &self.device_step, &ticket)
            if not failed:
                failed = self.backend.wait(self.backend, ticket)
        if failed:
            raise RuntimeError((<const char*>self.backend.error).decode())
        return (perf_counter() - started) / n

    def forward(
        self, const int32_t[::1] token_ids, const int32_t[::1] positions, const int32_t[::1] slots,
        const int32_t[::1] query_start, const int32_t[::1] kv_len, const int32_t[::1] table_start,
        const int32_t[::1] table_blocks, const int32_t[::1] logit_rows
    ):
        """Run one step and return the logits [R, vocab_size] of the rows asked for.

        Shapes: T tokens, S sequences; token_ids, positions, slots [T]; query_start, table_start [S + 1]; kv_len [S];
        table_blocks: all block tables, one after the other; logit_rows [R] token indices. For tests: the engine drives
        the backend itself.
        """
        cdef StepInput* s = &self.device_step
        cdef StepInput host
        cdef int64_t n_tokens = token_ids.shape[0], n_seqs = kv_len.shape[0], n_rows = logit_rows.shape[0]
        cdef int64_t n_entries = table_blocks.shape[0], i
        cdef uint64_t ticket = 0
        cdef int failed
        if not (0 < n_tokens <= self.limits.max_tokens and 0 < n_seqs <= self.limits.max_seqs
                and n_rows <= self.limits.max_rows and n_entries <= self.limits.max_table_entries):
            raise ValueError("the step is larger than the limits")
        if not (positions.shape[0] == slots.shape[0] == n_tokens
                and query_start.shape[0] == table_start.shape[0] == n_seqs + 1):
            raise ValueError("the arrays of the step do not fit together")
        host.n_tokens = n_tokens
        host.n_seqs = n_seqs
        host.n_rows = n_rows
        host.token_ids = <int32_t*>&token_ids[0]
        host.positions = <int32_t*>&positions[0]
        host.slots[0] = <int32_t*>&slots[0]
        host.query_start = <int32_t*>&query_start[0]
        host.kv_len = <int32_t*>&kv_len[0]
        host.logit_rows = <int32_t*>&logit_rows[0] if n_rows else NULL
        host.tables[0].start = <int32_t*>&table_start[0]
        host.tables[0].blocks = <int32_t*>&table_blocks[0] if n_entries else NULL
        for i in range(n_seqs):
            host.max_query_len = max(host.max_query_len, query_start[i + 1] - query_start[i])
            host.max_kv_len = max(host.max_kv_len, kv_len[i])
        with nogil:
            failed = self.backend.stage(self.backend, s, &host, &self.limits)
            if not failed:
                failed = self.backend.submit(
                    self.backend, self.calls.data(), <int32_t>self.calls.size(), self.kv, s, &ticket
                )
            if not failed:
                failed = self.backend.wait(self.backend, ticket)
        if failed:
            raise RuntimeError((<const char*>self.backend.error).decode())
        array = np.empty((n_rows, self.vocab_size), np.float32)
        cdef float[:, ::1] out = array
        if n_rows and self.backend.read(self.backend, &out[0, 0], self.logits, array.nbytes) != 0:
            raise RuntimeError((<const char*>self.backend.error).decode())
        return array


cdef void* allocate(Backend* backend, size_t n_bytes) except NULL:
    cdef void* p = backend.alloc(backend, n_bytes)
    if p == NULL:
        raise MemoryError((<const char*>backend.error).decode())
    return p


cdef void release(Backend* backend, void* p, size_t n_bytes) noexcept nogil:
    if p != NULL:
        backend.free(backend, p, n_bytes)


cdef int allocate_weights(BoundPlan plan) except -1:
    """All weights are one allocation, each on a 64-byte boundary."""
    cdef size_t i
    cdef Weight* w
    plan.weights_bytes = 0
    for i in range(plan.plan.weights.size()):
        w = &plan.plan.weights[i]
        w.bytes = plan.backend.weight_bytes(plan.backend, w)
        plan.weights_bytes += aligned(w.bytes)
    plan.weights_memory = <char*>allocate(plan.backend, plan.weights_bytes)
    cdef char* at = plan.weights_memory
    for i in range(plan.plan.weights.size()):
        w = &plan.plan.weights[i]
        w.data = at
        at += aligned(w.bytes)
    return 0


cdef int allocate_kv(BoundPlan plan, DType dtype, groups) except -1:
    cdef int g
    cdef KvCacheView* view
    for g, (n_layers, n_kv_heads, head_dim) in enumerate(groups):
        view = &plan.kv[g]
        describe_kv(view, dtype, n_layers, n_kv_heads, head_dim, plan.n_blocks, plan.block_size)
        plan.kv_bytes[g] = (
            <size_t>view.n_layers * <size_t>view.n_blocks * <size_t>view.block_size * <size_t>view.n_kv_heads
            * <size_t>view.head_dim * dtype_bytes(dtype)
        )
        view.k = allocate(plan.backend, plan.kv_bytes[g])
        view.v = allocate(plan.backend, plan.kv_bytes[g])
        if plan.n_host_blocks:
            view.n_host_blocks = plan.n_host_blocks
            plan.host_bytes[g] = 2 * (plan.kv_bytes[g] // plan.n_blocks) * plan.n_host_blocks
            view.host = plan.backend.alloc_host(plan.backend, plan.host_bytes[g])
            if view.host == NULL:
                raise MemoryError((<const char*>plan.backend.error).decode())
    return 0


cdef Weight* weight_at(BoundPlan plan, size_t index, int64_t row, int64_t n_rows) except NULL:
    if index >= plan.plan.weights.size():
        raise IndexError(f"there is no weight {index}")
    cdef Weight* w = &plan.plan.weights[index]
    if row < 0 or n_rows < 0 or row + n_rows > w.n:
        raise IndexError(f"rows {row} to {row + n_rows} of a weight of {w.n} rows")
    return w
