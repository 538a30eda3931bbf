"""Plans on the native side, as Python sees them: build one, lay out its memory, bind it, run a step in tests."""
from time import perf_counter

import numpy as np

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from rvllm._native.core cimport (
    Attrs, Backend, BackendOptions, DType, GemmStrategy, Kernel, KernelKey, KvCacheView, Op, OpCall, OpInfo, RowOrder,
    SamplerLimits, StepInput, StepLimits, Sym, Weight, WeightFormat, backend_create, dtype_bytes, op_info,
    step_input_bytes, step_input_layout,
)

cdef extern from "cpu/pool.h" namespace "rvllm" nogil:
    cdef cppclass ThreadPool:
        pass
    int pool_threads(const ThreadPool*)


cdef extern from "cpu/memory.h" namespace "rvllm" nogil:
    size_t host_memory_available()


cdef extern from "simd/scratch.h" namespace "rvllm" nogil:
    cdef cppclass Scratch:
        @staticmethod
        size_t bytes_for(int64_t n)


DTYPES = ("f32", "f16", "bf16", "i32")
SYMS = ("one", "tokens", "seqs", "rows")
FORMATS = ("vector", "dense")
ROW_ORDERS = ("plain", "gate_up")
GEMM_STRATEGIES = ("cutlass", "cublas", "hybrid")
SOURCES = ("arena", "token_ids", "positions", "slots", "logit_rows")
ATTRS = (
    "layer", "group", "n_heads", "n_kv_heads", "head_dim", "rotary_dim", "eps", "softmax_scale", "rope_scale",
)


class OpSpec:
    """One line of ops.def: operand names in order (a trailing '?' marks an optional one) and attribute names."""

    __slots__ = ("attrs", "code", "inputs", "outputs", "weights")

    def __init__(self, code: int, inputs: str, weights: str, outputs: str, attrs: str):
        self.code = code
        self.inputs = tuple(inputs.split())
        self.weights = tuple(weights.split())
        self.outputs = tuple(outputs.split())
        self.attrs = tuple(attrs.split())


def op_table() -> dict[str, OpSpec]:
    """Return ops.def by name."""
    cdef int i
    cdef const OpInfo* info
    table = {}
    for i in range(<int>Op.count):
        info = &op_info(<Op>i)
        table[info.name.decode()] = OpSpec(
            i, info.inputs.decode(), info.weights.decode(), info.outputs.decode(), info.attrs.decode()
        )
    return table


cdef DType dtype_of(str name) except *:
    return <DType><int>DTYPES.index(name)


cdef Weight weight_of(weight) except *:
    """The native form of a rvllm.plan.graph.Weight, without memory."""
    cdef Weight w
    w.format = <WeightFormat><int>FORMATS.index(weight.format)
    w.order = <RowOrder><int>ROW_ORDERS.index(weight.order)
    w.dtype = dtype_of(weight.dtype)
    w.n = weight.n
    w.k = weight.k
    return w


cdef class Device:
    """A backend, by name; `threads` of the CPU: None uses all this process may use.

    `plan_arch` (90 for sm_90) and `plan_memory` (bytes) describe a GPU that is not here: such a device can be planned
    for, and nothing else. `cublas_library` is cuBLASLt's file, for the strategies other than cutlass. Raises ValueError
    with the reason when there is no such device.
    """

    def __cinit__(self, str name="cpu", threads=None, *, bint batch_invariant=False, int plan_arch=0,
                  uint64_t plan_memory=0, str gemm_strategy="cutlass", str cublas_library=""):
        cdef char[512] error
        cdef BackendOptions options
        options.n_threads = threads or 0
        options.batch_invariant = batch_invariant
        options.plan_arch = plan_arch
        options.plan_memory = plan_memory
        options.gemm_strategy = <GemmStrategy><int>GEMM_STRATEGIES.index(gemm_strategy)
        library = cublas_library.encode()
        options.cublas_library = library
        self.ptr = backend_create(name.encode(), options, error, sizeof(error))
        if self.ptr == NULL:
            raise ValueError((<const char*>error).decode())

    def __dealloc__(self):
        if self.ptr != NULL:
            self.ptr.destroy(self.ptr)

    @property
    def name(self) -> str:
        return self.ptr.name.decode()

    @property
    def description(self) -> str:
        """Return the hardware in words."""
        return (<const char*>self.ptr.description).decode()

    @property
    def threads(self) -> int:
        """Return the threads of the CPU's pool, the caller included; 0 on other devices."""
        return pool_threads(<ThreadPool*>self.ptr.device) if self.name == "cpu" else 0

    def sampler_bytes(self, Limits limits, int vocab_size, int max_top, int max_len) -> int:
        """Return the bytes that the sampler works in: a few rows of logits per thread, or its state on a device."""
        cdef SamplerLimits s = sampler_limits_of(limits.c, vocab_size, max_top, max_len)
        if self.ptr.sampler_bytes != NULL:
            return self.ptr.sampler_bytes(self.ptr, &s)
        return self.threads * Scratch.bytes_for(vocab_size)

    def activation_dtype(self, str weights) -> str:
        """Return the type of the activations of a model whose matrices are stored as `weights`."""
        return DTYPES[<int>self.ptr.activation_dtype(self.ptr, dtype_of(weights))]

    def kernel(self, str op, str activation, str weight, attrs) -> str | None:
        """Return the name of the kernel of `op` for these types (`weight` of the KV cache too); None: there is none."""
        cdef KernelKey key
        cdef Kernel kernel
        spec = op_table()[op]
        reads_step = spec.inputs[0] in ("ids", "positions")
        key.op = <Op><int>spec.code
        key.in_ = dtype_of("i32" if reads_step else activation)
        key.out = DType.f32 if op == "rope_table" else dtype_of(activation)
        key.kv = dtype_of(weight)
        key.attrs = attrs_of(attrs)
        if spec.weights and spec.weights[0] in ("table", "weight"):
            dense = op in ("embed", "linear", "linear_silu_mul", "linear_rope_kv_write")
            key.format = WeightFormat.dense if dense else WeightFormat.vector
            key.weight = dtype_of(weight) if dense else DType.f32
        kernel = self.ptr.find(self.ptr, &key)
        return kernel.name.decode() if kernel.fn != NULL else None

    def memory_total(self) -> int:
        return self.ptr.memory_total(self.ptr)

    def memory_available(self) -> int:
        return self.ptr.memory_available(self.ptr)

    def host_memory_available(self) -> int:
        """Return the bytes of host memory that this process may still take."""
        return host_memory_available()

    def runtime_bytes(self) -> int:
        """Return what the driver takes for itself, an estimate; 0 on the CPU."""
        return self.ptr.runtime_bytes(self.ptr)

    def use_choices(self, str text) -> None:
        """Take measured choices of kernels, lines of NativePlan.tune(), into use; ValueError says what is wrong."""
        if self.ptr.use_choices == NULL:
            raise ValueError(f"the kernels of {self.name} have nothing to choose")
        if self.ptr.use_choices(self.ptr, text.encode()) != 0:
            raise ValueError((<const char*>self.ptr.error).decode())

    def weight_bytes(self, weight) -> int:
        """Return the resident bytes of a rvllm.plan.graph.Weight, padding included."""
        cdef Weight w = weight_of(weight)
        return aligned(self.ptr.weight_bytes(self.ptr, &w))


cdef class Limits:
    """Capacities of a step: what every buffer is sized for."""

    def __cinit__(
        self, int max_tokens, int max_seqs, int max_rows, int max_table_entries, int n_groups=1, *, int max_moves=0
    ):
        self.c.max_tokens = max_tokens
        self.c.max_seqs = max_seqs
        self.c.max_rows = max_rows
        self.c.max_table_entries = max_table_entries
        self.c.n_groups = n_groups
        self.c.max_moves = max_moves

    @property
    def max_tokens(self) -> int:
        return self.c.max_tokens

    @property
    def max_seqs(self) -> int:
        return self.c.max_seqs

    @property
    def max_rows(self) -> int:
        return self.c.max_rows

    @property
    def max_table_entries(self) -> int:
        return self.c.max_table_entries

    @property
    def n_groups(self) -> int:
        return self.c.n_groups

    def step_bytes(self) -> int:
        """Return the bytes of one step input."""
        return step_input_bytes(self.c)


cdef class NativePlan:
    """A rvllm.plan.graph.Plan in native form."""

    def __cinit__(self, plan):
        cdef Buffer b
        cdef PlanOp op
        cdef int i
        table = op_table()
        buffers = plan.buffers()
        weights = plan.weights()
        buffer_index = {buffer: i for i, buffer in enumerate(buffers)}
        weight_index = {weight: i for i, weight in enumerate(weights)}
        for buffer in buffers:
            b.dtype = dtype_of(buffer.dtype)
            b.rows = <Sym><int>SYMS.index(buffer.rows)
            b.cols = buffer.cols
            b.source = <Source><int>SOURCES.index(buffer.source)
            b.group = buffer.group
            self.c.buffers.push_back(b)
        for weight in weights:
            self.c.weights.push_back(weight_of(weight))
        for node in plan.ops:
            op = PlanOp()
            op.op = <Op><int>table[node.op].code
            for i, tensor in enumerate(node.inputs):
                op.in_[i] = view_of(tensor, buffer_index)
            for i, tensor in enumerate(node.outputs):
                op.out[i] = view_of(tensor, buffer_index)
            for i, weight in enumerate(node.weights):
                op.weight[i] = weight_index[weight]
            op.attrs = attrs_of(node.attrs)
            self.c.ops.push_back(op)
        self.c.logits = buffer_index[plan.logits.buffer]

    def arena(self, Limits limits) -> tuple[int, list[int]]:
        """Return the arena's bytes and each buffer's offset in it, in the order of Plan.buffers()."""
        cdef Arena arena = plan_arena(self.c, limits.c)
        return arena.bytes, list(arena.offset)

    def buffer_bytes(self, Limits limits) -> list[int]:
        """Return the bytes of each buffer, padding included."""
        cdef size_t i
        return [buffer_bytes(self.c.buffers[i], limits.c) for i in range(self.c.buffers.size())]

    def workspace_bytes(self, Device device, Limits limits, *, str kv_dtype, groups, int block_size) -> int:
        """Return what steps use on the device besides weights, cache, arena and inputs; `groups` as for BoundPlan."""
        cdef KvCacheView[4] kv
        cdef StepInput step
        cdef vector[OpCall] calls
        cdef int g
        for g, (n_layers, n_kv_heads, head_dim) in enumerate(groups):
            describe_kv(&kv[g], dtype_of(kv_dtype), n_layers, n_kv_heads, head_dim, 0, block_size)
        calls = bind_calls(self.c, device.ptr, dtype_of(kv_dtype), plan_arena(self.c, limits.c), NULL, step)
        return device.ptr.workspace_bytes(device.ptr, calls.data(), <int32_t>calls.size(), kv, &limits.c)

    def kernels(self, Device device, str kv_dtype) -> list[str | None]:
        """Return the name of each op's kernel; None where the device has none."""
        cdef KernelKey key
        cdef Kernel kernel
        cdef size_t i
        names = []
        for i in range(self.c.ops.size()):
            key = kernel_key(self.c, self.c.ops[i], dtype_of(kv_dtype))
            kernel = device.ptr.find(device.ptr, &key)
            names.append(kernel.name.decode() if kernel.fn != NULL else None)
        return names

    def refusals(self, Device device, str kv_dtype) -> list[str]:
        """Return why the device has no kernel for ops of this plan, each reason once, where it says so."""
        cdef KernelKey key
        cdef Kernel kernel
        cdef size_t i
        why = {}
        for i in range(self.c.ops.size()):
            key = kernel_key(self.c, self.c.ops[i], dtype_of(kv_dtype))
            kernel = device.ptr.find(device.ptr, &key)
            if kernel.fn == NULL and kernel.name[0] != 0:
                why[kernel.name.decode()] = None
        return list(why)

    def variants(self, Device device, str kv_dtype, rows) -> list[tuple[int, list[str]]]:
        """Return (index of the op, how it runs each number of `rows`) for the ops whose kernel has several ways."""
        cdef KernelKey key
        cdef char[128] text
        cdef size_t i
        out = []
        for i in range(self.c.ops.size()):
            key = kernel_key(self.c, self.c.ops[i], dtype_of(kv_dtype))
            ways = []
            for n in rows:
                device.ptr.describe(device.ptr, &key, n, text, sizeof(text))
                ways.append((<const char*>text).decode())
            if any(ways):
                out.append((i, ways))
        return out

    def tune(self, Device device, str kv_dtype, size_t op, int max_rows) -> str:
        """Measure other ways to run op `op` up to `max_rows` rows; return the faster ones, for Device.use_choices()."""
        cdef KernelKey key = kernel_key(self.c, self.c.ops.at(op), dtype_of(kv_dtype))
        cdef char[4096] text
        if device.ptr.tune == NULL:
            raise ValueError(f"the kernels of {device.name} have nothing to choose")
        if device.ptr.tune(device.ptr, &key, max_rows, text, sizeof(text)) != 0:
            raise RuntimeError((<const char*>device.ptr.error).decode())
        return (<const char*>text).decode()


cdef View view_of(tensor, dict index) except *:
    cdef View view
    view.buffer = index[tensor.buffer]
    view.start = tensor.start
    view.cols = tensor.cols
    return view


cdef Attrs attrs_of(dict values) except *:
    cdef Attrs attrs
    unknown = set(values).difference(ATTRS)
    if unknown:
        raise ValueError(f"unknown attributes {sorted(unknown)}")
    attrs.layer = values.get("layer", attrs.layer)
    attrs.group = values.get("group", attrs.group)
    attrs.n_heads = values.get("n_heads", attrs.n_heads)
    attrs.n_kv_heads = values.get("n_kv_heads", attrs.n_kv_heads)
    attrs.head_dim = values.get("head_dim", attrs.head_dim)
    attrs.rotary_dim = values.get("rotary_dim", attrs.rotary_dim)
    attrs.eps = values.get("eps", attrs.eps)
    attrs.softmax_scale = values.get("softmax_scale", attrs.softmax_scale)
    attrs.rope_scale = values.get("rope_scale", attrs.rope_scale)
    return attrs


cdef SamplerLimits sampler_limits_of(const StepLimits& limits, int vocab_size, int max_top, int max_len) noexcept:
    cdef SamplerLimits s
    s.max_slots = limits.max_seqs
    s.max_rows = limits.max_rows
    s.vocab_size = vocab_size
    s.max_top = max_top
    s.max_len = max_len
    return s


cdef size_t aligned(size_t n_bytes) noexcept nogil:
    return (n_bytes + 63) // 64 * 64


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


cdef void describe_kv(KvCacheView* view, DType dtype, int n_layers, int n_kv_heads, int head_dim, int n_blocks,
                      int block_size) noexcept:
    view.n_blocks = n_blocks
    view.block_size = block_size
    view.n_kv_heads = n_kv_heads
    view.head_dim = head_dim
    view.dtype = <int32_t>dtype
    view.n_layers = n_layers


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
