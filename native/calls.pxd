"""One call of a sampling primitive: what its rows share, and the parameters of each."""
from cpython.buffer cimport Py_buffer
from libc.stdint cimport int32_t, int64_t

from rvllm._native.arrays cimport Ids, Rows
from rvllm._native.rows cimport RowParams


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


# The lists, counts and bit masks that a call may come with.
cdef struct Extras:
    Ids output          # of a single row
    Ids prompt
    Ids* output_rows    # of a batch
    Ids* prompt_rows
    Py_buffer counts
    Py_buffer bits


# Opens the rows and gives each its neutral parameters. end() must follow, whatever happens.
cdef int begin(Call* call, Action action, Rows* rows, RowTask* one, object logits, str name, bint writable,
               object dtype) except -1
cdef void end(Call* call, RowTask* one) noexcept

# `field`: of the first task; the others follow at the distance of tasks.
cdef int set_number(Call* call, double* field, object value, str name, double lo, double hi) except -1
cdef int set_top_k(Call* call, object top_k) except -1
cdef int set_seeds(Call* call, object seed, object choice, object token_index) except -1
cdef int set_penalties(Call* call, object repetition, object frequency, object presence) except -1

cdef int open_extras(Call* call, Extras* extras, object token_ids, object prompt_ids, object counts,
                     object bitmask) except -1
cdef void close_extras(Call* call, Extras* extras) noexcept

# Runs the rows; returns their results as an array, or a number for a single row.
cdef object finish(Call* call, object num_threads, bint with_results)
