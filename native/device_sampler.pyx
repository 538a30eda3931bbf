"""Drive the sampler of a device from Python, as rvllm._native.sampler.Sampler is driven: for tests and benchmarks."""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp.algorithm cimport sort
from libcpp.vector cimport vector

from rvllm._native.clock cimport monotonic_ns
from rvllm._native.core cimport (
    Backend, Request, SampleResult, SampleRow, SamplerLimits, Sequence, StepInput, TopToken,
)
from rvllm._native.device cimport Device
from rvllm._native.sampler cimport describe_sequence, results_of, sample_rows_of


@cython.no_gc_clear  # __dealloc__ needs the device
cdef class DeviceSampler:
    """The sampler of `device`, over logits that lie in its memory.

    A step of up to `max_rows` rows reads `max_rows` rows of logits, `stride` values apart (default: the vocabulary).
    """
    cdef Device device
    cdef Backend* b
    cdef StepInput bound  # as the plan's
    cdef float* logits
    cdef size_t logits_bytes
    cdef SampleResult* results
    cdef TopToken* tops
    cdef readonly int64_t vocab_size
    cdef readonly int64_t stride
    cdef readonly int32_t max_slots
    cdef readonly int32_t max_rows
    cdef readonly int32_t max_top
    cdef vector[int32_t] last_token
    cdef vector[SampleRow] rows

    def __init__(self, Device device not None, int32_t max_slots, int64_t vocab_size, int32_t max_top, int32_t max_rows,
                 *, int64_t stride=0, int32_t max_len=4096):
        cdef SamplerLimits limits
        self.device = device
        self.b = device.ptr
        if self.b.prepare_sampler == NULL:
            raise ValueError(f"{device.name} has no sampler of its own")
        self.vocab_size = vocab_size
        self.stride = stride or vocab_size
        self.max_slots, self.max_rows, self.max_top = max_slots, max_rows, max_top
        limits.max_slots = max_slots
        limits.max_rows = max_rows
        limits.vocab_size = <int32_t>vocab_size
        limits.max_top = max_top
        limits.max_len = max_len
        self.logits_bytes = max_rows * self.stride * sizeof(float)
        self.logits = <float*>self.b.alloc(self.b, self.logits_bytes)
        self.results = <SampleResult*>self.b.alloc_host(self.b, max_rows * sizeof(SampleResult))
        self.tops = <TopToken*>self.b.alloc_host(self.b, max_rows * max(max_top, 1) * sizeof(TopToken))
        if self.logits == NULL or self.results == NULL or self.tops == NULL:
            raise MemoryError(self.error())
        if self.b.prepare_sampler(self.b, &self.bound, self.logits, self.stride, &limits):
            raise MemoryError(self.error())
        self.last_token.resize(max_slots)

    def __dealloc__(self):
        if self.b == NULL:
            return
        self.b.retire(self.b, &self.bound)
        if self.logits != NULL:
            self.b.free(self.b, self.logits, self.logits_bytes)
        if self.results != NULL:
            self.b.free_host(self.b, self.results, 0)
        if self.tops != NULL:
            self.b.free_host(self.b, self.tops, 0)

    cdef str error(self):
        return (<const char*>self.b.error).decode()

    def add(self, int32_t slot, prompt, output=(), **params):
        """Start (or restart after a preemption) a sequence in a slot; parameters as for Sampler.add()."""
        cdef Request request
        cdef Sequence seq
        if not 0 <= slot < self.max_slots:
            raise ValueError(f"slot: {slot} is not in [0, {self.max_slots})")
        describe_sequence(&request, &seq, slot, prompt, output, params)
        if self.b.admit(self.b, &self.bound, &seq):
            raise ValueError(self.error())

    def write(self, const float[:, :] logits):
        """Put rows of logits in place."""
        cdef int64_t i
        if logits.shape[0] > self.max_rows or logits.shape[1] != self.vocab_size or logits.strides[1] != sizeof(float):
            raise ValueError(f"logits: expected at most {self.max_rows} rows of {self.vocab_size} adjacent values")
        for i in range(logits.shape[0]):
            if self.b.write(self.b, self.logits + i * self.stride, &logits[i, 0], self.vocab_size * sizeof(float)):
                raise ValueError(self.error())

    cdef int send(self, uint64_t* ticket) except -1:
        cdef StepInput step
        cdef int failed
        step.n_sample_rows = <int32_t>self.rows.size()
        step.sample_rows = self.rows.data()
        with nogil:
            failed = self.b.sample(self.b, &self.bound, &step, self.results, self.tops, ticket)
        if failed:
            raise ValueError(self.error())
        return 0

    cdef int wait(self, uint64_t ticket) except -1:
        cdef int failed
        with nogil:
            failed = self.b.wait(self.b, ticket)
        if failed:
            raise ValueError(self.error())
        return 0

    cdef int set_rows(self, rows) except -1:
        self.rows = sample_rows_of(rows, self.max_rows, self.max_slots)
        if <int64_t>self.rows.size() > self.max_rows:
            raise ValueError(f"rows: {self.rows.size()} of them, at most {self.max_rows}")
        return 0

    def step(self, const float[:, :] logits, rows):
        """Serve rows of one step and return one dict per row, as Sampler.step()."""
        cdef uint64_t ticket
        cdef StepInput step
        self.write(logits)
        self.set_rows(rows)
        self.send(&ticket)
        self.wait(ticket)
        if self.b.read(self.b, self.last_token.data(), self.bound.last_token, self.max_slots * sizeof(int32_t)):
            raise ValueError(self.error())
        step.n_sample_rows = <int32_t>self.rows.size()
        step.sample_rows = self.rows.data()
        step.last_token = self.last_token.data()
        return results_of(&step, self.results, self.tops, self.max_top)

    def time(self, rows, int n=50) -> tuple[float, float]:
        """Serve the same rows of the logits in place n times; return microseconds of the device and of the host per
        call: of calls one behind the other, and the median of calls to an idle device."""
        cdef uint64_t ticket = 0
        cdef vector[int64_t] host
        cdef int64_t start
        cdef int _i
        self.set_rows(rows)
        for _i in range(n):
            start = monotonic_ns()
            self.send(&ticket)
            host.push_back(monotonic_ns() - start)
            self.wait(ticket)
        sort(host.begin(), host.end())
        start = monotonic_ns()
        for _i in range(n):
            self.send(&ticket)
        self.wait(ticket)
        return (monotonic_ns() - start) / 1e3 / n, host[n // 2] / 1e3
