"""The engine's sampler: draws the tokens of a step, one slot of state per running sequence.

The slot's history follows the sampler's own draws, so steps in flight need no word from the host.
"""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.pair cimport pair
from libcpp.vector cimport vector

from rvllm._native.core cimport Request, SampleResult, SampleRow, Sequence, StepInput, TopToken
from rvllm._native.rows cimport Scratch


cdef extern from "cpu/pool.h" namespace "rvllm" nogil:
    cdef cppclass ThreadPool:
        pass

    ThreadPool* pool_create(int n_threads) except NULL
    void pool_destroy(ThreadPool* pool)
    int pool_threads(const ThreadPool* pool)
    ctypedef void (*PoolFn)(void* ctx, int64_t i, int thread) noexcept
    void pool_run(ThreadPool* pool, int64_t n, PoolFn fn, void* ctx)


cdef extern from "sampler_slot.h" namespace "rvllm" nogil:
    cdef cppclass TokenCounts:
        const int32_t* ids()
        const int32_t* counts()
        int64_t size()

    cdef cppclass SamplerSlot:
        SamplerSlot()
        double temperature
        double top_p
        double min_p
        int64_t top_k
        uint64_t seed
        uint32_t choice
        float repetition
        float frequency
        float presence
        cbool penalized
        TokenCounts counts
        vector[int32_t] allowed
        vector[int32_t] end_tokens
        vector[pair[int32_t, float]] bias
        vector[vector[int32_t]] bad_words
        cbool reset(const Sequence& seq, int64_t vocab)
        cbool edits(cbool suppress_stop)
        void push(int32_t token)
        cbool completes(const vector[int32_t]& word)


cdef class Sampler:
    cdef vector[SamplerSlot] slots
    cdef vector[Scratch] scratch  # one per thread
    cdef readonly int64_t vocab_size
    cdef readonly int32_t max_top

    # (Re)initialises slot seq.slot from seq.request.params, seq.choice and seq.tokens. Nonzero: out of memory.
    cdef int reset(self, Sequence* seq) noexcept nogil

    # Serves step.sample_rows into results [n_sample_rows] and tops [n_sample_rows][max_top] (may be NULL
    # when no row has n_top > 0), and writes step.last_token. Rows run in parallel: a slot may appear in
    # one `sample` row only. `pool` must not have more threads than the sampler; NULL: the caller alone.
    # The logits are not changed. A row that fails is marked; its last_token becomes 0.
    cdef int sample(self, ThreadPool* pool, const float* logits, int64_t row_stride, const StepInput* step,
                    SampleResult* results, TopToken* tops, int32_t max_top) noexcept nogil


# Between Python's objects and a step's, for tests and benchmarks of samplers.
cdef int describe_sequence(Request* request, Sequence* seq, int32_t slot, prompt, output, dict params) except -1
cdef vector[SampleRow] sample_rows_of(rows, int64_t n_logits, int64_t n_slots) except *
cdef list results_of(const StepInput* step, const SampleResult* results, const TopToken* tops, int32_t max_top)
