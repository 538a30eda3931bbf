"""Run single ops of a backend on NumPy arrays: for tests and benches, not for the engine.

An operand is a NumPy array of float32 or int32: 1-D arrays of int32 are one value per row, other
arrays are matrices whose rows may lie any distance apart. On the CPU nothing is copied: views stay views. Other
backends get the bytes from an operand's first element to its last, and give those of outputs back.
"""
import numpy as np

cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from rvllm._native.clock cimport monotonic_ns
from rvllm._native.core cimport (
    Backend, DType, Kernel, KernelKey, KvCacheView, Op, OpCall, Operand, StepInput, StepLimits, Sym, step_input_bytes,
    step_input_layout,
)
from rvllm._native.device cimport Device
from rvllm._native.operands cimport KvCache, Step, WeightArray, array_dtype, data_of, pack
from rvllm._native.ops cimport attrs_of

from rvllm._native.ops import op_table

cdef extern from "cpu/isa.h" namespace "rvllm" nogil:
    cdef enum class Isa(unsigned char):
        generic
    Isa isa()
    const char* isa_name(Isa)


def isa_in_use():
    """Return the instruction set of the kernels: generic, avx2, avx512 or avx512_bf16."""
    return isa_name(isa()).decode()


cdef struct Bound:
    OpCall* call
    KvCacheView* kv
    StepInput* step


@cython.no_gc_clear  # __dealloc__ needs the backend
cdef class Mirror:
    """Backend memory that stands for bytes of host memory."""
    cdef Ops ops
    cdef void* device
    cdef void* host
    cdef size_t n_bytes
    cdef bint is_output
    cdef bint pinned  # the backend's memory is on the host

    def __dealloc__(self):
        cdef Backend* b
        if self.device != NULL:
            b = self.ops.backend
            (b.free_host if self.pinned else b.free)(b, self.device, self.n_bytes)


@cython.no_gc_clear  # likewise
cdef class Call:
    """One op bound to its operands."""
    cdef OpCall call
    cdef KvCacheView view[4]
    cdef Ops ops
    cdef Step step
    cdef StepInput device_step   # other backends than the CPU: the step in their memory
    cdef StepLimits limits
    cdef list mirrors
    cdef list keep
    cdef readonly str op
    cdef readonly str kernel

    def __dealloc__(self):
        if self.ops is not None:
            self.ops.backend.retire(self.ops.backend, &self.device_step)

    def run(self):
        """Run the op once, as a step of its own."""
        self.upload()
        self.execute(1)
        self.download()

    def time_many(self, int n):
        """Run the op n times in one submission; return the seconds of one, from submission to the end."""
        cdef int64_t before
        self.upload()
        self.execute(1)
        before = monotonic_ns()
        self.execute(n)
        return 1e-9 * (monotonic_ns() - before) / n

    cdef int upload(self) except -1:
        cdef Mirror m
        cdef Backend* b = self.ops.backend
        for m in self.mirrors:
            if m.pinned:
                memcpy(m.device, m.host, m.n_bytes)
            elif b.write(b, m.device, m.host, m.n_bytes) != 0:
                raise RuntimeError(b.error.decode())
        return 0

    cdef int download(self) except -1:
        cdef Mirror m
        cdef Backend* b = self.ops.backend
        for m in self.mirrors:
            if m.pinned:
                memcpy(m.host, m.device, m.n_bytes)
            elif m.is_output and b.read(b, m.host, m.device, m.n_bytes) != 0:
                raise RuntimeError(b.error.decode())
        return 0

    cdef int execute(self, int n) except -1:
        cdef uint64_t ticket = 0
        cdef int i, failed
        cdef Backend* b = self.ops.backend
        cdef StepInput* step = &self.step.s if self.ops.on_host else &self.device_step
        cdef OpCall* calls = <OpCall*>calloc(n, sizeof(OpCall))
        if calls == NULL:
            raise MemoryError
        for i in range(n):
            calls[i] = self.call
        with nogil:
            failed = 0 if self.ops.on_host else b.stage(b, step, &self.step.s, &self.limits)
            if not failed:
                failed = b.submit(b, calls, n, self.view, step, &ticket)
            if not failed:
                failed = b.wait(b, ticket)
        free(calls)
        if failed:
            raise RuntimeError(b.error.decode())
        return 0


cdef Mirror mirror(Ops ops, void* host, size_t n_bytes, bint is_output, bint pinned=False):
    cdef Mirror m = Mirror()
    cdef Backend* b = ops.backend
    m.ops, m.host, m.n_bytes, m.is_output, m.pinned = ops, host, n_bytes, is_output, pinned
    m.device = (b.alloc_host if pinned else b.alloc)(b, n_bytes)
    if m.device == NULL:
        raise MemoryError(ops.backend.error.decode())
    return m


@cython.no_gc_clear  # its backend outlives what is made with it
cdef class Ops:
    """A backend of its own; n_threads, of the CPU: 0 uses as many as the process may use. ValueError: there is none."""
    cdef Device device
    cdef Backend* backend  # the device's
    cdef readonly bint on_host

    def __cinit__(self, int n_threads=0, str backend="cpu", str gemm_strategy="cutlass", str cublas_library=""):
        self.device = Device(backend, n_threads, gemm_strategy=gemm_strategy, cublas_library=cublas_library)
        self.backend = self.device.ptr
        self.on_host = backend == "cpu"

    cdef void* place(self, Call call, array, bint is_output, bint pinned=False) except? NULL:
        """The address of an operand in the backend's memory."""
        cdef void* host = data_of(array, is_output)
        cdef Mirror m
        cdef size_t n_bytes = array.itemsize
        if self.on_host:
            return host
        for stride, length in zip(array.strides, array.shape, strict=True):
            n_bytes += stride * max(length - 1, 0)
        m = mirror(self, host, n_bytes, is_output, pinned)
        call.mirrors.append(m)
        return m.device

    cdef int place_step(self, Call call) except -1:
        """Lay the step out in the backend's memory, and make the op ready."""
        cdef StepInput* s = &call.step.s
        cdef Mirror m
        call.limits.max_tokens, call.limits.max_seqs = max(s.n_tokens, 1), max(s.n_seqs, s.n_copies, 1)
        call.limits.max_rows = max(s.n_rows, 1)
        call.limits.max_table_entries = len(call.step.arrays.get("table_blocks", ())) + 1
        m = mirror(self, NULL, step_input_bytes(call.limits), False)
        call.keep.append(m)  # stage() writes it
        step_input_layout(&call.device_step, call.limits, m.device)
        last = call.step.arrays.get("last_token")
        if last is not None:
            call.device_step.last_token = <int32_t*>self.place(call, last, False)
        if self.backend.prepare(self.backend, &call.call, 1, call.view, &call.device_step, &call.limits) != 0:
            raise MemoryError(self.backend.error.decode())
        return 0

    @property
    def n_threads(self):
        return self.device.threads

    @property
    def memory(self):
        """(total, available) bytes."""
        return self.device.memory_total(), self.device.memory_available()

    def use_choices(self, str text):
        """Take measured choices of kernels into use; ValueError says what is wrong with them."""
        self.device.use_choices(text)

    def alloc_and_free(self, size_t n_bytes):
        """Allocate and free backend memory; return (address, all bytes zero). MemoryError: refused."""
        cdef unsigned char* p = <unsigned char*>self.backend.alloc(self.backend, n_bytes)
        cdef size_t i
        cdef bint zero = True
        if p == NULL:
            raise MemoryError(self.backend.error.decode())
        for i in range(0, n_bytes, 512):
            zero = zero and p[i] == 0
        memset(p, 1, n_bytes)
        self.backend.free(self.backend, p, n_bytes)
        return <size_t>p, zero

    def weight(self, array, *, dtype=None, order="plain"):
        """Pack an array [n] or [n, k] for this backend; see operands.pack()."""
        return pack(self.device, array, dtype, order)

    def bind(self, str op, inputs=(), weights=(), outputs=(), attrs=None, Step step=None, kv=None):
        """Return the op as a Call. Absent operands are None; kv: a KvCache, or one per cache group.

        Without a step, its tokens are the rows of the first output (or input). LookupError: no kernel.
        """
        cdef Call call = Call()
        cdef KernelKey key
        cdef Kernel kernel
        cdef Operand* operand
        cdef int i
        spec = op_table()[op]
        call.op, call.ops, call.call.op = op, self, <Op><int>spec.code
        call.mirrors = []
        first = outputs[0] if len(outputs) else inputs[0]
        call.step = step if step is not None else Step(n_tokens=len(first), n_rows=len(first))
        call.keep = [inputs, weights, outputs, kv]
        for kind, arrays in (("inputs", inputs), ("weights", weights), ("outputs", outputs)):
            n_operands = len(getattr(spec, kind))
            if len(arrays) > n_operands:
                raise ValueError(f"{op} takes {n_operands} {kind}, not {len(arrays)}")
        for is_output, arrays in ((False, inputs), (True, outputs)):
            for i, array in enumerate(arrays):
                if array is None:
                    continue
                operand = &call.call.out[i] if is_output else &call.call.in_[i]
                operand.data = self.place(call, array, is_output)
                operand.dtype = array_dtype(array)
                operand.cols = 1 if array.ndim == 1 else array.shape[1]
                if array.ndim == 2 and array.shape[1] > 1 and array.strides[1] != array.itemsize:
                    raise ValueError(f"{op}: the columns of an operand are not adjacent")
                operand.row_stride = array.strides[0] // array.itemsize
                name = (spec.outputs if is_output else spec.inputs)[i]
                operand.rows = Sym.rows if op == "take_rows" and name != "x" else Sym.tokens
        for i, w in enumerate(weights):
            if w is not None:
                call.call.weight[i] = &(<WeightArray?>w).w
        call.call.attrs = attrs_of(attrs or {})
        for i, group in enumerate([] if kv is None else [kv] if isinstance(kv, KvCache) else kv):
            call.view[i] = (<KvCache?>group).view
            call.view[i].k = self.place(call, group.k, True)
            call.view[i].v = self.place(call, group.v, True)
            if group.host is not None:
                call.view[i].host = self.place(call, group.host, True, True)
        key.op = call.call.op
        key.in_, key.out = call.call.in_[0].dtype, call.call.out[0].dtype
        if call.call.weight[0] != NULL:
            key.weight, key.format = call.call.weight[0].dtype, call.call.weight[0].format
            key.n, key.k = call.call.weight[0].n, call.call.weight[0].k
        key.kv = <DType>call.view[call.call.attrs.group].dtype
        key.attrs = call.call.attrs
        kernel = self.backend.find(self.backend, &key)
        if kernel.fn == NULL:
            why = kernel.name.decode() or "with these types and attributes"
            raise LookupError(f"no kernel for {op}: {why}")
        call.call.fn, call.call.kernel_name = kernel.fn, kernel.name
        call.kernel = kernel.name.decode()
        if not self.on_host:
            self.place_step(call)
        return call

    def run(self, str op, inputs=(), weights=(), outputs=(), attrs=None, step=None, kv=None):
        """Run an op once on its operands; return the name of the kernel. See bind()."""
        call = self.bind(op, inputs, weights, outputs, attrs, step, kv)
        call.run()
        return call.kernel

    def submit(self, list calls, Step step, kv=None):
        """Run bound calls as one step through the CPU's submit(); return its ticket."""
        cdef int i, n = len(calls)
        cdef uint64_t ticket = 0
        cdef KvCacheView views[4]
        cdef OpCall* list_ = <OpCall*>calloc(n + 1, sizeof(OpCall))
        if list_ == NULL:
            raise MemoryError
        for i in range(n):
            list_[i] = (<Call?>calls[i]).call
        if kv is not None:
            views[0] = (<KvCache?>kv).view
        with nogil:
            self.backend.submit(self.backend, list_, n, views, &step.s, &ticket)
            self.backend.wait(self.backend, ticket)
        free(list_)
        return ticket

    def time(self, calls, int n):
        """Run a Call, or each of a list in turn, n times without the GIL; return n times in seconds.

        The times are those of single runs on the CPU; rotate over several calls to read operands from memory.
        """
        cdef list calls_ = [calls] if isinstance(calls, Call) else list(calls)
        cdef int i, n_calls = len(calls_)
        cdef uint64_t ticket = 0
        cdef int64_t before
        cdef Call call
        cdef Bound* bound = <Bound*>calloc(n_calls + 1, sizeof(Bound))
        if bound == NULL:
            raise MemoryError
        for i in range(n_calls):
            call = calls_[i]
            bound[i].call, bound[i].kv, bound[i].step = &call.call, call.view, &call.step.s
        times = np.empty(n)
        cdef double* seconds = <double*>data_of(times, True)
        with nogil:
            for i in range(n):
                before = monotonic_ns()
                self.backend.submit(self.backend, bound[i % n_calls].call, 1, bound[i % n_calls].kv,
                                    bound[i % n_calls].step, &ticket)
                self.backend.wait(self.backend, ticket)
                seconds[i] = 1e-9 * (monotonic_ns() - before)
        free(bound)
        return times


class Cpu(Ops):
    """The CPU backend with a pool of its own; n_threads 0: as many as the process may use."""

    def __new__(cls, int n_threads=0):
        return Ops.__new__(cls, n_threads, "cpu")


class Cuda(Ops):
    """The CUDA backend on the first device. ValueError, with the reason, where there is none."""

    def __new__(cls, gemm_strategy="cutlass", cublas_library=""):
        return Ops.__new__(cls, 0, "cuda", gemm_strategy, cublas_library)
