"""A backend by name: what it is, what it has kernels for, what memory it has and takes."""
from libc.stdint cimport int64_t, uint64_t

from rvllm._native.core cimport (
    BackendOptions, DType, GemmStrategy, Kernel, KernelKey, Op, SamplerLimits, StepLimits, Weight, WeightFormat,
    backend_create, step_input_bytes,
)
from rvllm._native.ops cimport attrs_of, dtype_of, weight_of

from rvllm._native.ops import DTYPES, op_table

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

GEMM_STRATEGIES = ("cutlass", "cublas", "hybrid")


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


cdef SamplerLimits sampler_limits_of(const StepLimits& limits, int vocab_size, int max_top, int max_len) noexcept:
    cdef SamplerLimits s
    s.max_slots = limits.max_seqs
    s.max_rows = limits.max_rows
    s.vocab_size = vocab_size
    s.max_top = max_top
    s.max_len = max_len
    return s
