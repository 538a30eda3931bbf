"""What callers of the sampling primitives hand over: rows of logits, token ids, parameters per row."""
from cpython.buffer cimport Py_buffer
from libc.stdint cimport int32_t, int64_t, uint64_t

from rvllm._native.rows cimport Scratch
from rvllm._native.sampler cimport PoolFn


cdef enum Kind:
    f32
    f16
    bf16


# One or more rows of a buffer. Values of a row are adjacent; rows may lie anywhere.
cdef struct Rows:
    Py_buffer view
    char* data
    int64_t n_rows
    int64_t n        # values per row
    int64_t stride   # bytes from row to row
    Kind kind
    bint single      # the array has one dimension


# Token ids of one row.
cdef struct Ids:
    Py_buffer view
    const int32_t* data
    int64_t n
    int32_t* owned   # a converted copy, or NULL


cdef int open_buffer(object array, str name, Py_buffer* view, int flags) except -1

# The `name` of each is the argument that errors speak of. A zeroed struct may be closed.
cdef int open_rows(object array, str name, Rows* rows, bint writable, object dtype) except -1
cdef void close_rows(Rows* rows) noexcept
cdef float* read_row(const Rows* rows, int64_t i, float* buffer) noexcept nogil
cdef void write_row(const Rows* rows, int64_t i, const float* values) noexcept nogil

cdef int open_ids(object ids, str name, Ids* out, int64_t vocab) except -1
cdef void close_ids(Ids* ids) noexcept
cdef Ids* open_id_rows(object ids, str name, int64_t n_rows, int64_t vocab) except NULL
cdef void close_id_rows(Ids* ids, int64_t n_rows) noexcept

# A number, or one per row, into out[0], out[step], ... Each must be in [lo, hi].
cdef int per_row(object value, str name, double* out, int64_t step, int64_t n_rows, double lo, double hi) except -1
cdef int per_row_int(object value, str name, int64_t* out, int64_t step, int64_t n_rows) except -1

# Calls fn(ctx, i, thread) for i in [0, n) on `num_threads` threads, without the GIL.
cdef int run_rows(object num_threads, int64_t n, PoolFn fn, void* ctx) except -1
