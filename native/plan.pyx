"""A traced plan on the native side: its kernels, its memory, and measuring the former."""
from libc.stdint cimport int32_t
from libcpp.vector cimport vector

from rvllm._native.core cimport DType, Kernel, KernelKey, KvCacheView, Op, OpCall, StepInput, Sym
from rvllm._native.device cimport Device, Limits
from rvllm._native.ops cimport attrs_of, dtype_of, weight_of

from rvllm._native.ops import op_table

SYMS = ("one", "tokens", "seqs", "rows")
SOURCES = ("arena", "token_ids", "positions", "slots", "logit_rows")


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


cdef void describe_kv(KvCacheView* view, DType dtype, int n_layers, int n_kv_heads, int head_dim, int n_blocks,
                      int block_size) noexcept:
    view.n_blocks = n_blocks
    view.block_size = block_size
    view.n_kv_heads = n_kv_heads
    view.head_dim = head_dim
    view.dtype = <int32_t>dtype
    view.n_layers = n_layers
