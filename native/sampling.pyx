# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, autotestdict=False
"""Sampling primitives over NumPy arrays, without the GIL. The public face is rvllm.sampling.

`logits` is one row [vocab] or a batch [rows, vocab]: float32, float16, or bfloat16 as uint16 with
dtype="bfloat16". Values of a row must be adjacent; rows may have any stride. Arithmetic is float32 on
16-bit rows too. What returns a value per row returns an array for a batch and a number for one row.

Tokens are ordered by logit, larger first, and among equal logits by id, lower first. Filters keep a
prefix of that order: exactly the one that float64 arithmetic gives. A row that holds a NaN, or nothing
but -inf, is left as it is and reported as -1. Logits of +inf share the probability equally.

Parameters may be one number for all rows or one per row. `num_threads`: rows run on that many threads
(None: all that the process may use); results do not depend on it. Wrong arguments raise ValueError.
"""
from cpython.buffer cimport (
    Py_buffer, PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.math cimport INFINITY, NAN, exp, isinf
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from rvllm._native.arrays cimport (
    Ids, Rows, close_id_rows, close_ids, close_rows, open_id_rows, open_ids, open_rows, per_row, per_row_int, read_row,
    run_rows, write_row,
)
from rvllm._native.rows cimport (
    Cut, ExpParams, K, Purpose, RowParams, RowStats, Scratch, argmax_row, cut_row, exp_params, log_prob,
    multinomial_row, random_bits, sample_row, stats_row, thread_scratch, top_row,
)

import os

import numpy as np


# What a function does with each row.
cdef enum Action:
    act_argmax
    act_temperature
    act_cut
    act_softmax
    act_log_softmax
    act_penalties
    act_bitmask
    act_top
    act_multinomial
    act_sample


# Parameters of one row; unused ones stay neutral.
cdef struct RowTask:
    RowParams filter
    double repetition
    double frequency
    double presence
    int64_t seed
    int64_t choice
    int64_t token_index


# One call: what its rows share.
cdef struct Call:
    Action action
    Rows* rows
    Rows* out
    RowTask* tasks        # [rows]
    Ids* output_ids       # [rows] or NULL
    Ids* prompt_ids
    const int32_t* counts  # [rows][vocab], or one row for all (counts_stride 0), or NULL
    int64_t counts_stride
    const int32_t* bits
    int64_t bits_stride
    int64_t n_words
    int64_t n_top
    int32_t* top_ids
    float* top_log_probs
    int64_t* results      # [rows] or NULL
    int failed            # out of memory


# ---- penalties -----------------------------------------------------------------------------------

cdef void penalize_ids(float* x, int64_t vocab, const Ids* prompt, const Ids* output, const int32_t* counts,
                       const RowTask* t, Scratch* s) noexcept nogil:
    """Repetition once per distinct id of either list, the others by output count."""
    cdef const Ids* only = output if prompt.n == 0 else prompt
    cdef bint own_counts = counts == NULL and output.n > 0 and (t.frequency != 0 or t.presence != 0)
    cdef const int32_t* known = counts
    cdef const int32_t* ids = only.data
    cdef int64_t i, n = prompt.n + output.n
    if n == 0:
        if counts != NULL:
            K.penalize_dense(x, vocab, counts, <float>t.repetition, <float>t.frequency, <float>t.presence)
        return
    if own_counts:
        known = s.counts
        for i in range(output.n):
            s.counts[output.data[i]] += 1
    if n > vocab:  # more ids than fit: each once
        ids = s.idx
        n = distinct(output, s, distinct(prompt, s, 0))
        for i in range(n):
            s.counts[s.idx[i]] &= 0x7fffffff
    elif prompt.n > 0 and output.n > 0:
        memcpy(s.idx, prompt.data, prompt.n * sizeof(int32_t))
        memcpy(s.idx + prompt.n, output.data, output.n * sizeof(int32_t))
        ids = s.idx
    K.penalize(x, ids, n, known, True, <float>t.repetition, <float>t.frequency, <float>t.presence, s.val)
    if own_counts:
        for i in range(output.n):
            s.counts[output.data[i]] = 0


cdef int64_t distinct(const Ids* ids, Scratch* s, int64_t n) noexcept nogil:
    """Appends ids not yet in s.idx[0:n], and marks them in the top bit of s.counts."""
    cdef int64_t i
    cdef int32_t token
    for i in range(ids.n):
        token = ids.data[i]
        if s.counts[token] >= 0:
            s.counts[token] |= <int32_t>0x80000000
            s.idx[n] = token
            n += 1
    return n


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
        result = sample_edited(call, i, x, s)
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
    cdef ExpParams e
    cdef float* y = <float*>(call.out.data + i * call.out.stride) if call.out.view.itemsize == 4 else s.wide
    cdef float top
    cdef double share
    if K.scan_max(x, n, s.lane_max, &top) or isinf(top):
        stats_row(x, n, s, &stats)
        share = stats.log_ties if top == INFINITY else 0
        for j in range(n):
            if top != INFINITY:
                y[j] = NAN
            elif call.action == act_softmax:
                y[j] = <float>exp(-share) if x[j] == INFINITY else 0
            else:
                y[j] = <float>-share if x[j] == INFINITY else -INFINITY
    elif call.action == act_softmax:
        e = exp_params(top, 1)
        K.scale(y, n, <float>(1 / <double>K.exp_store(x, n, &e, y)))
    else:
        stats_row(x, n, s, &stats)
        K.subtract(x, n, top, <float>(stats.log_sum - top), y)
    write_row(call.out, i, y)
    return 0


# ---- calls ---------------------------------------------------------------------------------------

cdef object finish(Call* call, object num_threads, bint with_results):
    """Runs the rows; returns their results as an array, or a number for a single row."""
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
    """Opens the rows and gives each its neutral parameters. end() must follow, whatever happens."""
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
    """`field`: of the first task; the others follow at the distance of tasks."""
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


# The lists, counts and bit masks that a call may come with.
cdef struct Extras:
    Ids output          # of a single row
    Ids prompt
    Ids* output_rows    # of a batch
    Ids* prompt_rows
    Py_buffer counts
    Py_buffer bits


cdef int open_table(Call* call, object table, str name, Py_buffer* view, int64_t width, int64_t* stride) except -1:
    """An int32 array [width] for all rows, or [rows, width]."""
    try:
        PyObject_GetBuffer(table, view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
    except (TypeError, ValueError, BufferError) as error:
        raise ValueError(f"{name}: expected a contiguous int32 array ({error})") from None
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


# ---- the primitives ------------------------------------------------------------------------------

def apply_penalties(logits, token_ids=None, prompt_ids=None, counts=None, *, repetition_penalty=1.0,
                    frequency_penalty=0.0, presence_penalty=0.0, num_threads=1, dtype=None):
    """Penalise tokens that occurred, in place.

    With c the number of times a token is among the outputs: a token of prompt or output has its logit
    divided by `repetition_penalty` if positive, multiplied if not, once; then
    `frequency_penalty` * c + `presence_penalty` * (c > 0) is subtracted (the formulas of the OpenAI API
    and of CTRL, arXiv:1909.05858).

    token_ids, prompt_ids: ids of the output and of the prompt, int32 (int64 and lists are converted),
        repeats allowed, -1 is padding; for a batch, one such list per row.
    counts: int32 [vocab] or [rows, vocab], how often each token is among the outputs; then the ids only
        say which tokens to look at (all with counts > 0, when there are no ids).
    """
    cdef Call call
    cdef Rows rows
    cdef RowTask one
    cdef Extras extras
    memset(&extras, 0, sizeof(extras))
    try:
        begin(&call, act_penalties, &rows, &one, logits, "logits", True, dtype)
        set_penalties(&call, repetition_penalty, frequency_penalty, presence_penalty)
        open_extras(&call, &extras, token_ids, prompt_ids, counts, None)
        finish(&call, num_threads, False)
    finally:
        close_extras(&call, &extras)
        end(&call, &one)


def apply_temperature(logits, temperature, *, num_threads=1, dtype=None):
    """Divide logits by `temperature` > 0 in place. Temperature 0 means greedy: use argmax()."""
    cdef Call call
    cdef Rows rows
    cdef RowTask one
    try:
        begin(&call, act_temperature, &rows, &one, logits, "logits", True, dtype)
        set_number(&call, &call.tasks.filter.temperature, temperature, "temperature", 1e-30, 1e30)
        finish(&call, num_threads, False)
    finally:
        end(&call, &one)


def apply_top_k(logits, top_k, *, num_threads=1, dtype=None):
    """Set all but the `top_k` largest logits to -inf in place (0 or -1: off). Return how many stay."""
    cdef Call call
    cdef Rows rows
    cdef RowTask one
    try:
        begin(&call, act_cut, &rows, &one, logits, "logits", True, dtype)
        set_top_k(&call, top_k)
        return finish(&call, num_threads, True)
    finally:
        end(&call, &one)


def apply_top_p(logits, top_p, *, num_threads=1, dtype=None):
    """Set all but the nucleus to -inf in place. Return how many tokens stay.

    The nucleus (arXiv:1904.09751) is the shortest prefix whose probability reaches `top_p`, in (0, 1];
    at least one token stays, and 1 is off.
    """
    cdef Call call
    cdef Rows rows
    cdef RowTask one
    try:
        begin(&call, act_cut, &rows, &one, logits, "logits", True, dtype)
        set_number(&call, &call.tasks.filter.top_p, top_p, "top_p", 1e-30, 1)
        return finish(&call, num_threads, True)
    finally:
        end(&call, &one)


def apply_min_p(logits, min_p, *, num_threads=1, dtype=None):
    """Set tokens less probable than `min_p` (in [0, 1]) times the most probable to -inf in place.

    Return how many stay. Source: arXiv:2407.01082.
    """
    cdef Call call
    cdef Rows rows
    cdef RowTask one
    try:
        begin(&call, act_cut, &rows, &one, logits, "logits", True, dtype)
        set_number(&call, &call.tasks.filter.min_p, min_p, "min_p", 0, 1)
        return finish(&call, num_threads, True)
    finally:
        end(&call, &one)


def apply_bitmask(logits, bitmask, *, num_threads=1, dtype=None):
    """Set tokens whose bit is 0 to -inf in place.

    bitmask: int32 [ceil(vocab / 32)] for all rows or [rows, ceil(vocab / 32)]; bit t % 32 of word t // 32
        allows token t, as structured-output libraries fill it.
    """
    cdef Call call
    cdef Rows rows
    cdef RowTask one
    cdef Extras extras
    memset(&extras, 0, sizeof(extras))
    try:
        begin(&call, act_bitmask, &rows, &one, logits, "logits", True, dtype)
        if bitmask is None:
            raise ValueError("bitmask: expected an int32 array, got None")
        open_extras(&call, &extras, None, None, None, bitmask)
        finish(&call, num_threads, False)
    finally:
        close_extras(&call, &extras)
        end(&call, &one)


cdef object normalized(Action action, object logits, object out, object num_threads, object dtype):
    cdef Call call
    cdef Rows rows, out_rows
    cdef RowTask one
    memset(&out_rows, 0, sizeof(out_rows))
    try:
        begin(&call, action, &rows, &one, logits, "logits", False, dtype)
        if out is None:
            shape = (rows.n_rows, rows.n)
            out = np.empty(shape[1:] if rows.single else shape, np.float32)
            open_rows(out, "out", &out_rows, True, None)
        else:
            open_rows(out, "out", &out_rows, True, dtype)
        if out_rows.n != rows.n or out_rows.n_rows != rows.n_rows or out_rows.single != rows.single:
            raise ValueError("out: must have the shape of logits")
        call.out = &out_rows
        finish(&call, num_threads, False)
        return out
    finally:
        close_rows(&out_rows)
        end(&call, &one)


def softmax(logits, *, out=None, num_threads=1, dtype=None):
    """Return the probabilities: float32, or in `out` (its type; may be `logits` itself).

    A row that holds a NaN, or nothing but -inf, becomes NaN.
    """
    return normalized(act_softmax, logits, out, num_threads, dtype)


def log_softmax(logits, *, out=None, num_threads=1, dtype=None):
    """Return the log-probabilities: float32, or in `out` (its type; may be `logits` itself).

    A row that holds a NaN, or nothing but -inf, becomes NaN.
    """
    return normalized(act_log_softmax, logits, out, num_threads, dtype)


def argmax(logits, *, num_threads=1, dtype=None):
    """Return the first index of the largest logit: int for one row, int64 [rows] for a batch."""
    cdef Call call
    cdef Rows rows
    cdef RowTask one
    try:
        begin(&call, act_argmax, &rows, &one, logits, "logits", False, dtype)
        return finish(&call, num_threads, True)
    finally:
        end(&call, &one)


def top_logprobs(logits, n, *, num_threads=1, dtype=None):
    """Return (ids, logprobs) of the `n` most probable tokens, best first: int32 and float32 [n] or [rows, n].

    A row that holds a NaN, or nothing but -inf, gets ids of -1.
    """
    cdef Call call
    cdef Rows rows
    cdef RowTask one
    cdef int32_t[::1] ids_view
    cdef float[::1] log_probs_view
    try:
        begin(&call, act_top, &rows, &one, logits, "logits", False, dtype)
        if not isinstance(n, int) or not 1 <= n <= rows.n:
            raise ValueError(f"n: {n!r} is not an integer from 1 to {rows.n}")
        call.n_top = n
        ids = np.empty(rows.n_rows * n, np.int32)
        log_probs = np.empty(rows.n_rows * n, np.float32)
        if rows.n_rows > 0:
            ids_view = ids
            log_probs_view = log_probs
            call.top_ids = &ids_view[0]
            call.top_log_probs = &log_probs_view[0]
        finish(&call, num_threads, False)
        return (ids, log_probs) if rows.single else (ids.reshape(-1, n), log_probs.reshape(-1, n))
    finally:
        end(&call, &one)


def multinomial(probs, *, seed=None, choice=None, token_index=0, num_threads=1, dtype=None):
    """Draw one token per row from probabilities that need not sum to 1: int, or int64 [rows].

    The draw is a function of the row and of (seed, choice, token_index) alone; seed None takes one from
    the operating system. With one seed for a batch the rows are its choices 0, 1, ... unless `choice` is given.
    A row with a negative or non-finite value, or without a positive one, raises ValueError.
    """
    cdef Call call
    cdef Rows rows
    cdef RowTask one
    try:
        begin(&call, act_multinomial, &rows, &one, probs, "probs", False, dtype)
        set_seeds(&call, seed, choice, token_index)
        drawn = finish(&call, num_threads, True)
        if (drawn < 0) if rows.single else bool((drawn < 0).any()):
            row = 0 if rows.single else int(np.argmin(drawn))
            raise ValueError(f"probs: row {row} is not made of finite values >= 0 with a positive sum")
        return drawn
    finally:
        end(&call, &one)


def sample_batch(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0,
                 frequency_penalty=0.0, presence_penalty=0.0, token_ids=None, prompt_ids=None, counts=None,
                 bitmask=None, seed=None, choice=None, token_index=0, num_threads=1, dtype=None):
    """Draw one token per row: bit mask, penalties, temperature, min-p, top-k, top-p, draw. Logits stay.

    Returns an int, or int64 [rows]; -1 where a row holds a NaN or nothing is allowed. Every parameter is
    one value or one per row; see apply_penalties() for the lists, apply_bitmask() for the mask and
    multinomial() for seeds. Temperatures below 1e-5 are greedy: the first of the largest.
    Filters work on logits / temperature in full precision.
    """
    cdef Call call
    cdef Rows rows
    cdef RowTask one
    cdef Extras extras
    memset(&extras, 0, sizeof(extras))
    try:
        begin(&call, act_sample, &rows, &one, logits, "logits", False, dtype)
        set_number(&call, &call.tasks.filter.temperature, temperature, "temperature", 0, 1e30)
        set_top_k(&call, top_k)
        set_number(&call, &call.tasks.filter.top_p, top_p, "top_p", 1e-30, 1)
        set_number(&call, &call.tasks.filter.min_p, min_p, "min_p", 0, 1)
        set_penalties(&call, repetition_penalty, frequency_penalty, presence_penalty)
        set_seeds(&call, seed, choice, token_index)
        open_extras(&call, &extras, token_ids, prompt_ids, counts, bitmask)
        return finish(&call, num_threads, True)
    finally:
        close_extras(&call, &extras)
        end(&call, &one)
