# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One call of a sampling primitive: opens its arguments, runs its rows without the GIL, closes them."""
from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release
from libc.math cimport INFINITY, NAN, exp, isinf
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from rvllm._native.arrays cimport (
    f32, close_id_rows, close_ids, close_rows, open_buffer, open_id_rows, open_ids, open_rows, per_row, per_row_int,
    read_row, run_rows, write_row,
)
from rvllm._native.rows cimport (
    Cut, K, Purpose, RowStats, Scratch, argmax_row, cut_row, log_prob, multinomial_row,
    random_bits, sample_row, stats_row, thread_scratch, top_row,
)

import os

import numpy as np


# ---- penalties -----------------------------------------------------------------------------------

cdef void penalize_ids(float* x, int64_t vocab, const Ids* prompt, const Ids* output, const int32_t* counts,
                       const RowTask* t, Scratch* s) noexcept nogil:
    """Repetition once per distinct id of either list, the others by output count."""
    cdef const Ids* only = output if prompt.n == 0 else prompt
    cdef float repetition = <float>t.repetition, frequency = <float>t.frequency, presence = <float>t.presence
    cdef bint counted = counts != NULL or (frequency == 0 and presence == 0)  # the ids need no counting
    if only.n == 0:
        if counts != NULL:
            K.penalize_dense(x, vocab, counts, repetition, frequency, presence)
    elif only.n == prompt.n + output.n <= vocab and (counted or output.n == 0):
        K.penalize(x, only.data, only.n, counts, True, repetition, frequency, presence, s.val)
    else:
        if counted:
            mark(output, counts, s.counts)
        else:
            count(output, s.counts)
        mark(prompt, counts, s.counts)
        K.penalize_tally(x, output.data, output.n, s.counts, repetition, frequency, presence)
        K.penalize_tally(x, prompt.data, prompt.n, s.counts, repetition, frequency, presence)


cdef void count(const Ids* ids, int32_t* tally) noexcept nogil:
    cdef int64_t i
    for i in range(ids.n):
        tally[ids.data[i]] += 1


cdef void mark(const Ids* ids, const int32_t* counts, int32_t* tally) noexcept nogil:
    """Enters known counts (or none) where the tally is empty: -1 for 0."""
    cdef int64_t i
    cdef int32_t token, known = 0
    for i in range(ids.n):
        token = ids.data[i]
        if counts != NULL:
            known = counts[token]
        if tally[token] == 0:
            tally[token] = known if known > 0 else -1


# ---- one row -------------------------------------------------------------------------------------

cdef void run_row(void* ctx, int64_t i, int thread) noexcept nogil:
    cdef Call* call = <Call*>ctx
    cdef Scratch* s = thread_scratch()
    cdef int64_t n = call.rows.n, result = 0
    cdef const RowTask* t = &call.tasks[i]
    cdef float* x
    if not s.reserve(n):
        call.failed = 1
        return
    x = read_row(call.rows, i, s.wide)
    if call.action == act_argmax:
        result = argmax_row(x, n, s)
    elif call.action == act_multinomial:
        result = multinomial_row(x, n, bits_of(t), s)
    elif call.action == act_sample:
        if call.rows.kind == f32 and i + 1 < call.rows.n_rows:
            s.next = read_row(call.rows, i + 1, NULL)
        result = sample_edited(call, i, x, s)
        s.next = NULL
    elif call.action == act_top:
        result = top_log_probs(call, i, x, s)
    elif call.action == act_softmax or call.action == act_log_softmax:
        result = normalize(call, i, x, s)
    else:
        if call.action == act_temperature:
            K.divide(x, n, <float>t.filter.temperature)
        elif call.action == act_cut:
            result = cut(x, n, t, s)
        elif call.action == act_penalties:
            penalize_ids(x, n, &call.prompt_ids[i], &call.output_ids[i], counts_of(call, i), t, s)
        elif call.action == act_bitmask:
            K.mask_bits(x, n, call.bits + i * call.bits_stride, call.n_words)
        write_row(call.rows, i, x)
    if call.results != NULL:
        call.results[i] = result


cdef inline const int32_t* counts_of(const Call* call, int64_t i) noexcept nogil:
    if call.counts == NULL:
        return NULL
    return call.counts + i * call.counts_stride


cdef inline uint64_t bits_of(const RowTask* t) noexcept nogil:
    return random_bits(<uint64_t>t.seed, <uint32_t>t.choice, <uint32_t>t.token_index, Purpose.draw)


cdef int64_t cut(float* x, int64_t n, const RowTask* t, Scratch* s) noexcept nogil:
    cdef Cut border
    if cut_row(x, n, &t.filter, s, &border) < 0:
        return -1
    return K.mask(x, n, border.value, border.last)


cdef int64_t sample_edited(const Call* call, int64_t i, const float* x, Scratch* s) noexcept nogil:
    cdef int64_t n = call.rows.n
    cdef const RowTask* t = &call.tasks[i]
    cdef bint penalized = call.prompt_ids != NULL and (t.repetition != 1 or t.frequency != 0 or t.presence != 0)
    if penalized or call.bits != NULL:
        memcpy(s.row, x, n * sizeof(float))
        if call.bits != NULL:
            K.mask_bits(s.row, n, call.bits + i * call.bits_stride, call.n_words)
        if penalized:
            penalize_ids(s.row, n, &call.prompt_ids[i], &call.output_ids[i], counts_of(call, i), t, s)
        x = s.row
    return sample_row(x, n, &t.filter, bits_of(t), s)


cdef int64_t top_log_probs(const Call* call, int64_t i, const float* x, Scratch* s) noexcept nogil:
    cdef RowStats stats
    cdef int32_t* ids = call.top_ids + i * call.n_top
    cdef float* log_probs = call.top_log_probs + i * call.n_top
    cdef int64_t j, at
    if stats_row(x, call.rows.n, s, &stats) < 0:
        for j in range(call.n_top):
            ids[j] = -1
            log_probs[j] = -INFINITY
        return -1
    for j in range(top_row(x, call.rows.n, call.n_top, s)):
        at = <int64_t>(<uint32_t>s.keys[j])
        ids[j] = s.idx[at]
        log_probs[j] = <float>log_prob(s.val[at], &stats)
    return 0


cdef int64_t normalize(const Call* call, int64_t i, const float* x, Scratch* s) noexcept nogil:
    """Softmax or log-softmax of a row into call.out."""
    cdef int64_t n = call.rows.n, j
    cdef RowStats stats
    cdef float* y = <float*>(call.out.data + i * call.out.stride) if call.out.view.itemsize == 4 else s.wide
    cdef float top
    cdef double share
    if call.action == act_softmax and K.softmax(x, n, y, s.order, s.group_mass):
        pass
    elif K.scan_max(x, n, s.block_max, &top) or isinf(top):
        stats_row(x, n, s, &stats)
        share = stats.log_ties if top == INFINITY else 0
        for j in range(n):
            if top != INFINITY:
                y[j] = NAN
            elif call.action == act_softmax:
                y[j] = <float>exp(-share) if x[j] == INFINITY else 0
            else:
                y[j] = <float>-share if x[j] == INFINITY else -INFINITY
    else:
        stats_row(x, n, s, &stats)
        K.subtract(x, n, top, <float>(stats.log_sum - top), y)
    write_row(call.out, i, y)
    return 0


# ---- calls ---------------------------------------------------------------------------------------

cdef object finish(Call* call, object num_threads, bint with_results):
    cdef int64_t one = 0
    cdef int64_t[::1] view
    cdef object results = None
    if with_results:
        if call.rows.single:
            call.results = &one
        else:
            results = np.empty(call.rows.n_rows, np.int64)
            if call.rows.n_rows > 0:
                view = results
                call.results = &view[0]
    run_rows(num_threads, call.rows.n_rows, run_row, call)
    if call.failed:
        raise MemoryError(f"no memory for rows of {call.rows.n} values")
    return one if with_results and call.rows.single else results


cdef int begin(Call* call, Action action, Rows* rows, RowTask* one, object logits, str name, bint writable,
               object dtype) except -1:
    cdef int64_t i
    memset(call, 0, sizeof(Call))
    memset(rows, 0, sizeof(Rows))
    call.action = action
    call.rows = rows
    call.tasks = one
    open_rows(logits, name, rows, writable, dtype)
    if rows.n_rows > 1:
        call.tasks = <RowTask*>calloc(rows.n_rows, sizeof(RowTask))
        if call.tasks == NULL:
            raise MemoryError
    for i in range(max(rows.n_rows, 1)):
        memset(&call.tasks[i], 0, sizeof(RowTask))
        call.tasks[i].filter.temperature = 1
        call.tasks[i].filter.top_p = 1
        call.tasks[i].repetition = 1
    return 0


cdef void end(Call* call, RowTask* one) noexcept:
    if call.tasks != one:
        free(call.tasks)
    close_rows(call.rows)


cdef int set_number(Call* call, double* field, object value, str name, double lo, double hi) except -1:
    return per_row(value, name, field, sizeof(RowTask) // sizeof(double), call.rows.n_rows, lo, hi)


cdef int set_integer(Call* call, int64_t* field, object value, str name) except -1:
    return per_row_int(value, name, field, sizeof(RowTask) // sizeof(int64_t), call.rows.n_rows)


cdef int set_top_k(Call* call, object top_k) except -1:
    cdef int64_t i
    set_integer(call, &call.tasks.filter.top_k, top_k, "top_k")
    for i in range(call.rows.n_rows):
        if call.tasks[i].filter.top_k < -1:
            raise ValueError(f"top_k: {call.tasks[i].filter.top_k} is less than -1")
        if call.tasks[i].filter.top_k < 0:
            call.tasks[i].filter.top_k = 0
    return 0


cdef int set_seeds(Call* call, object seed, object choice, object token_index) except -1:
    """One seed for a batch: rows are its choices, unless `choice` says otherwise."""
    cdef int64_t i
    if seed is None:
        seed = int.from_bytes(os.urandom(8), "little")
    set_integer(call, &call.tasks.seed, seed, "seed")
    set_integer(call, &call.tasks.token_index, token_index, "token_index")
    if choice is not None:
        set_integer(call, &call.tasks.choice, choice, "choice")
    elif isinstance(seed, int):
        for i in range(call.rows.n_rows):
            call.tasks[i].choice = i
    return 0


cdef int set_penalties(Call* call, object repetition, object frequency, object presence) except -1:
    set_number(call, &call.tasks.repetition, repetition, "repetition_penalty", 1e-30, 1e30)
    set_number(call, &call.tasks.frequency, frequency, "frequency_penalty", -1e30, 1e30)
    set_number(call, &call.tasks.presence, presence, "presence_penalty", -1e30, 1e30)
    return 0


cdef int open_table(Call* call, object table, str name, Py_buffer* view, int64_t width, int64_t* stride) except -1:
    """An int32 array [width] for all rows, or [rows, width]."""
    open_buffer(table, name, view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
    if view.itemsize != 4 or view.format[0] not in (b"i", b"l"):
        raise ValueError(f"{name}: expected int32, got format {view.format.decode()!r}")
    if view.ndim == 1 and view.shape[0] == width:
        stride[0] = 0
    elif view.ndim == 2 and view.shape[1] == width and view.shape[0] == call.rows.n_rows and not call.rows.single:
        stride[0] = width
    else:
        shape = tuple([view.shape[i] for i in range(view.ndim)])
        raise ValueError(f"{name}: expected shape ({width},) or ({call.rows.n_rows}, {width}), got {shape}")
    return 0


cdef int open_extras(Call* call, Extras* extras, object token_ids, object prompt_ids, object counts,
                     object bitmask) except -1:
    cdef int64_t n = call.rows.n
    if call.rows.single:
        open_ids(token_ids, "token_ids", &extras.output, n)
        open_ids(prompt_ids, "prompt_ids", &extras.prompt, n)
        call.output_ids = &extras.output
        call.prompt_ids = &extras.prompt
    else:
        extras.output_rows = call.output_ids = open_id_rows(token_ids, "token_ids", call.rows.n_rows, n)
        extras.prompt_rows = call.prompt_ids = open_id_rows(prompt_ids, "prompt_ids", call.rows.n_rows, n)
    if counts is not None:
        open_table(call, counts, "counts", &extras.counts, n, &call.counts_stride)
        call.counts = <const int32_t*>extras.counts.buf
    if bitmask is not None:
        call.n_words = (n + 31) // 32
        open_table(call, bitmask, "bitmask", &extras.bits, call.n_words, &call.bits_stride)
        call.bits = <const int32_t*>extras.bits.buf
    return 0


cdef void close_extras(Call* call, Extras* extras) noexcept:
    close_ids(&extras.output)
    close_ids(&extras.prompt)
    close_id_rows(extras.output_rows, call.rows.n_rows)
    close_id_rows(extras.prompt_rows, call.rows.n_rows)
    PyBuffer_Release(&extras.counts)
    PyBuffer_Release(&extras.bits)
