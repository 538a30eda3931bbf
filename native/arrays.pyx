# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What callers of the sampling primitives hand over: rows of logits, token ids, parameters per row.

Arrays come through the buffer protocol, so NumPy is not needed to read them.
"""
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.float cimport PyFloat_Check
from cpython.long cimport PyLong_AsUnsignedLongLongMask, PyLong_Check
from libc.stdint cimport uint16_t
from libc.stdlib cimport calloc, free, malloc

from rvllm._native.rows cimport K, kMaxVocab
from rvllm._native.sampler cimport ThreadPool, pool_run

from operator import index

import numpy as np


# The same as PyObject_GetBuffer, but an error is only returned: looking for it costs more than the call.
cdef extern from "Python.h":
    int try_buffer "PyObject_GetBuffer"(object array, Py_buffer* view, int flags) noexcept
    void PyErr_Clear()


cdef extern from "shared_pool.h" namespace "rvllm" nogil:
    const int kMaxSharedThreads
    ThreadPool* shared_pool(int n_threads)
    int usable_cpus()


cdef inline char format_of(const Py_buffer* view) noexcept:
    """The type code of a buffer of native scalars; 0 for anything else."""
    cdef const char* f = view.format
    if f == NULL:
        return b"B"
    if f[0] == b"@" or f[0] == b"=" or f[0] == b"<":
        f += 1
    return f[0] if f[0] != 0 and f[1] == 0 else 0


cdef int open_buffer(object array, str name, Py_buffer* view, int flags) except -1:
    if try_buffer(array, view, flags) == 0:
        return 0
    PyErr_Clear()
    try:
        PyObject_GetBuffer(array, view, flags)
    except (TypeError, ValueError, BufferError) as error:
        kind = "an"
        if flags & PyBUF_WRITABLE:
            kind = "a writable"
        elif flags == PyBUF_C_CONTIGUOUS | PyBUF_FORMAT:
            kind = "a contiguous"
        raise ValueError(f"{name}: expected {kind} array, got {type(array).__name__} ({error})") from None
    return 0


cdef int open_rows(object array, str name, Rows* rows, bint writable, object dtype) except -1:
    cdef Py_buffer* view = &rows.view
    cdef char code
    cdef int last
    open_buffer(array, name, view, PyBUF_STRIDES | PyBUF_FORMAT | (PyBUF_WRITABLE if writable else 0))
    code = format_of(view)
    if code == b"f" and dtype is None:
        rows.kind = f32
    elif code == b"e" and dtype is None:
        rows.kind = f16
    elif code == b"H" and dtype == "bfloat16":
        rows.kind = bf16
    else:
        raise ValueError(
            f"{name}: expected float32, float16, or uint16 with dtype='bfloat16', got format "
            f"{view.format.decode()!r}" + (f" with dtype={dtype!r}" if dtype is not None else "")
        )
    if view.ndim != 1 and view.ndim != 2:
        raise ValueError(f"{name}: expected 1 or 2 dimensions, got {view.ndim}")
    last = view.ndim - 1
    rows.data = <char*>view.buf
    rows.n = view.shape[last]
    rows.single = view.ndim == 1
    rows.n_rows = 1 if rows.single else view.shape[0]
    rows.stride = 0 if rows.single else view.strides[0]
    if rows.n < 1 or rows.n > kMaxVocab:
        raise ValueError(f"{name}: a row must have 1 to {kMaxVocab} values, got {rows.n}")
    if view.strides[last] != view.itemsize and rows.n > 1:
        raise ValueError(f"{name}: values of a row must be adjacent, got a stride of {view.strides[last]} bytes")
    return 0


cdef void close_rows(Rows* rows) noexcept:
    PyBuffer_Release(&rows.view)


cdef float* read_row(const Rows* rows, int64_t i, float* buffer) noexcept nogil:
    """Row i as float32: in place, or converted into `buffer`."""
    cdef char* at = rows.data + i * rows.stride
    if rows.kind == f32:
        return <float*>at
    if rows.kind == f16:
        K.from_half(<const uint16_t*>at, rows.n, buffer)
    else:
        K.from_bfloat(<const uint16_t*>at, rows.n, buffer)
    return buffer


cdef void write_row(const Rows* rows, int64_t i, const float* values) noexcept nogil:
    """Stores what read_row() gave, after a change."""
    cdef char* at = rows.data + i * rows.stride
    if rows.kind == f16:
        K.to_half(values, rows.n, <uint16_t*>at)
    elif rows.kind == bf16:
        K.to_bfloat(values, rows.n, <uint16_t*>at)


# ---- token ids -----------------------------------------------------------------------------------

cdef int open_ids(object ids, str name, Ids* out, int64_t vocab) except -1:
    """int32 without padding is used where it lies; anything else is copied. -1 is padding."""
    cdef Py_buffer* view = &out.view
    cdef char code
    cdef int64_t i, value, kept = 0
    cdef const int32_t* narrow
    if ids is None:
        return 0
    if not PyObject_CheckBuffer(ids):
        try:
            array = np.asarray(ids)
            if array.dtype.kind not in "iu" and array.size > 0:
                raise TypeError(f"got {array.dtype}")
            ids = np.ascontiguousarray(array, dtype=np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{name}: expected token ids ({error})") from None
    open_buffer(ids, name, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    code = format_of(view)
    if view.ndim != 1 or code not in (b"i", b"l", b"q"):
        raise ValueError(f"{name}: expected one dimension of int32 or int64 token ids, got {view.ndim} of format "
                         f"{view.format.decode()!r}")
    out.n = view.shape[0]
    if view.itemsize == 4:
        narrow = <const int32_t*>view.buf
        if K.ids_below(narrow, out.n, vocab):
            out.data = narrow
            return 0
    out.owned = <int32_t*>malloc(max(out.n, 1) * sizeof(int32_t))
    if out.owned == NULL:
        raise MemoryError
    for i in range(out.n):
        value = (<const int32_t*>view.buf)[i] if view.itemsize == 4 else (<const int64_t*>view.buf)[i]
        if value == -1:
            continue
        if value < 0 or value >= vocab:
            raise ValueError(f"{name}: token id {value} is not in the vocabulary of {vocab}")
        out.owned[kept] = <int32_t>value
        kept += 1
    out.n = kept
    out.data = out.owned
    return 0


cdef void close_ids(Ids* ids) noexcept:
    PyBuffer_Release(&ids.view)
    free(ids.owned)


cdef Ids* open_id_rows(object ids, str name, int64_t n_rows, int64_t vocab) except NULL:
    cdef Ids* out = <Ids*>calloc(max(n_rows, 1), sizeof(Ids))
    cdef int64_t i = 0
    if out == NULL:
        raise MemoryError
    if ids is None:
        return out
    try:
        if len(ids) != n_rows:
            raise ValueError(f"{name}: expected ids for {n_rows} rows, got {len(ids)}")
        for row in ids:
            open_ids(row, name, &out[i], vocab)
            i += 1
    except BaseException as error:
        close_id_rows(out, n_rows)
        if isinstance(error, TypeError):
            raise ValueError(f"{name}: expected a sequence of ids per row ({error})") from None
        raise
    return out


cdef void close_id_rows(Ids* ids, int64_t n_rows) noexcept:
    cdef int64_t i
    if ids == NULL:
        return
    for i in range(n_rows):
        close_ids(&ids[i])
    free(ids)


# ---- parameters per row --------------------------------------------------------------------------

cdef object number(object value, str name):
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: expected a number or one per row, got {value!r}") from None


cdef int per_row(object value, str name, double* out, int64_t step, int64_t n_rows, double lo, double hi) except -1:
    cdef int64_t i
    cdef double x
    cdef const double[:] values
    if PyFloat_Check(value) or PyLong_Check(value) or np.ndim(value) == 0:
        x = value if PyFloat_Check(value) else number(value, name)
        for i in range(n_rows):
            out[i * step] = x
        if not lo <= x <= hi:
            raise ValueError(f"{name}: {x:g} is not in [{lo:g}, {hi:g}]")
        return 0
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected a number or one per row ({error})") from None
    if array.shape != (n_rows,):
        raise ValueError(f"{name}: expected a number or one for each of {n_rows} rows, got shape {array.shape}")
    values = array
    for i in range(n_rows):
        x = values[i]
        if not lo <= x <= hi:
            raise ValueError(f"{name}: {x:g} in row {i} is not in [{lo:g}, {hi:g}]")
        out[i * step] = x
    return 0


cdef int per_row_int(object value, str name, int64_t* out, int64_t step, int64_t n_rows) except -1:
    """Integers modulo 2^64: seeds are unsigned."""
    cdef int64_t i
    cdef uint64_t one
    cdef const uint64_t[:] values
    if not PyLong_Check(value) and np.ndim(value) == 1:
        try:
            array = np.asarray(value)
            if array.dtype.kind not in "iu":
                array = np.array([int(v) & 0xFFFFFFFFFFFFFFFF for v in value], dtype=np.uint64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected an integer or one per row ({error})") from None
        if array.shape != (n_rows,):
            raise ValueError(f"{name}: expected an integer or one for each of {n_rows} rows, got shape {array.shape}")
        values = array.astype(np.uint64)
        for i in range(n_rows):
            out[i * step] = <int64_t>values[i]
        return 0
    if not PyLong_Check(value):
        try:
            value = index(value)
        except TypeError:
            raise ValueError(f"{name}: expected an integer or one per row, got {value!r}") from None
    one = PyLong_AsUnsignedLongLongMask(value)
    for i in range(n_rows):
        out[i * step] = <int64_t>one
    return 0


# ---- threads -------------------------------------------------------------------------------------

cdef int run_rows(object num_threads, int64_t n, PoolFn fn, void* ctx) except -1:
    cdef int threads
    cdef int64_t i
    cdef ThreadPool* pool
    if num_threads is None:
        threads = usable_cpus()
    elif PyLong_Check(num_threads) and 1 <= num_threads <= kMaxSharedThreads:
        threads = num_threads
    else:
        raise ValueError(f"num_threads: {num_threads!r} is not an integer from 1 to {kMaxSharedThreads}")
    with nogil:
        if threads == 1 or n <= 1:
            for i in range(n):
                fn(ctx, i, 0)
        else:
            pool = shared_pool(threads)
            pool_run(pool, n, fn, ctx)
    return 0
