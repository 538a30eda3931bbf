# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, autotestdict=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
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
from libc.stdint cimport int32_t
from libc.string cimport memset

from rvllm._native.arrays cimport Rows, close_rows, open_rows
from rvllm._native.calls cimport (
    Action, Call, Extras, RowTask, act_argmax, act_bitmask, act_cut, act_log_softmax, act_multinomial, act_penalties,
    act_sample, act_softmax, act_temperature, act_top, begin, close_extras, end, finish, open_extras, set_number,
    set_penalties, set_seeds, set_top_k,
)

import numpy as np


def apply_penalties(logits, token_ids=None, prompt_ids=None, counts=None, repetition_penalty=1.0,
                    frequency_penalty=0.0, presence_penalty=0.0, *, num_threads=1, dtype=None):
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


def multinomial(probs, seed=None, choice=None, token_index=0, *, num_threads=1, dtype=None):
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
