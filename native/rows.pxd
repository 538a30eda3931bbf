"""Sampling from one row of logits: who stays (min-p, top-k, top-p), the draw, log-probabilities.

Tokens are ordered by value, larger first, and among equal values by index, lower first. Every filter
keeps a prefix of that order, so what stays is described by one Cut.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool


cdef extern from "simd/kernels.h" namespace "rvllm" nogil:
    const int64_t kGroup
    const int64_t kFew
    const int kLanes
    const int kFixedBits
    const int64_t kMaxVocab
    const double kGreedyBelow
    const double kRoughMass
    int64_t n_groups(int64_t n)

    cdef cppclass ExpParams:
        float base
        double c
        double m
        double slack

    ExpParams exp_params(float max, double temperature)

    cdef cppclass ExactSum:
        ExactSum()
        void add(uint64_t w)
        double value()

    cdef cppclass SamplingKernels:
        const char* name
        cbool scan_max(const float* x, int64_t n, float* block_max, float* max)
        int64_t argmax(const float* x, int64_t n, float* lane_max)
        int64_t count_above(const float* x, int64_t n, float v)
        int64_t collect(const float* x, int64_t n, float lo, const float* block_max, float* val, int32_t* idx)
        float kth_bound(float* v, int64_t n, int64_t k)
        void sort_few(uint64_t* keys, int64_t n)
        uint64_t mass(const float* x, int64_t n, const ExpParams* e, float lo, const float* block_max,
                      uint64_t* group_mass)
        uint64_t rough_mass(const float* x, int64_t n, const ExpParams* e, float lo, const float* block_max,
                            const float* next)
        float mass_bound(const float* x, int64_t n, const ExpParams* e, float lo, const float* block_max, double all,
                         double enough, float* scratch, float* certain)
        uint64_t weights(const float* x, int64_t n, const ExpParams* e, uint64_t* w)
        void histogram(const float* x, const uint64_t* w, int64_t n, float top, float bins_per_unit, uint64_t* hist)
        int64_t pick_bins(const float* x, int64_t n, float top, float bins_per_unit, int64_t first, int64_t last,
                          uint64_t* keys)
        void exact_mass(const float* x, int64_t n, const ExpParams* e, float lo, float above, ExactSum* total,
                        ExactSum* part)
        uint64_t exact_weight(float x, const ExpParams* e)
        cbool softmax(const float* x, int64_t n, float* y, float* tops, uint64_t* group_mass)
        void divide(float* x, int64_t n, float by)
        void subtract(const float* x, int64_t n, float first, float second, float* y)
        int64_t mask(float* x, int64_t n, float v, int64_t last)
        void mask_bits(float* x, int64_t n, const int32_t* bits, int64_t n_words)
        uint64_t prob_mass(const float* p, int64_t n, float scale, uint64_t* group_mass, float* max)
        void prob_weights(const float* p, int64_t n, float scale, uint64_t* w)
        void penalize(float* x, const int32_t* ids, int64_t n, const int32_t* counts, cbool dense, float repetition,
                      float frequency, float presence, float* scratch)
        void penalize_tally(float* x, const int32_t* ids, int64_t n, int32_t* tally, float repetition,
                            float frequency, float presence)
        void penalize_dense(float* x, int64_t n, const int32_t* counts, float repetition, float frequency,
                            float presence)
        cbool ids_below(const int32_t* ids, int64_t n, int64_t limit)
        void from_half(const uint16_t* src, int64_t n, float* dst)
        void to_half(const float* src, int64_t n, uint16_t* dst)
        void from_bfloat(const uint16_t* src, int64_t n, float* dst)
        void to_bfloat(const float* src, int64_t n, uint16_t* dst)

    const SamplingKernels* sampling_kernels()

    const SamplingKernels* K "rvllm::sampling_kernels()"


cdef extern from "simd/scratch.h" namespace "rvllm" nogil:
    cdef cppclass Scratch:
        float* row
        float* wide
        float* val
        int32_t* idx
        uint64_t* w
        uint64_t* keys
        float* block_max
        float* order
        uint64_t* group_mass
        int32_t* counts
        const float* next
        int64_t capacity
        cbool reserve(int64_t n)

    Scratch* thread_scratch()


cdef extern from "simd/philox.h" namespace "rvllm" nogil:
    cdef enum class Purpose(uint32_t):
        draw

    uint64_t random_bits(uint64_t seed, uint32_t choice, uint32_t token_index, Purpose purpose)
    uint64_t scale_bits(uint64_t bits, uint64_t n)


# What stays of a row: values above `value`, and those equal to it up to index `last`.
cdef struct Cut:
    float value
    int64_t last


# How to draw from a row. Values are checked where they come from.
cdef struct RowParams:
    double temperature  # below kGreedyBelow: the first of the largest
    double top_p        # in (0, 1]; 1: off
    double min_p        # in [0, 1]; 0: off
    int64_t top_k       # 0: off


# The whole row before any filter, at temperature 1.
cdef struct RowStats:
    float max
    double log_sum      # log of the sum of exp(logits)
    double log_ties     # when max is +inf: log of how many are


# Functions that return int64_t: -1 when the row holds a NaN or nothing but -inf.
cdef int64_t argmax_row(const float* x, int64_t n, Scratch* s) noexcept nogil
cdef int64_t sample_row(const float* x, int64_t n, const RowParams* p, uint64_t bits, Scratch* s) noexcept nogil
cdef int64_t cut_row(const float* x, int64_t n, const RowParams* p, Scratch* s, Cut* cut) noexcept nogil
cdef int64_t stats_row(const float* x, int64_t n, Scratch* s, RowStats* stats) noexcept nogil
cdef double log_prob(float x, const RowStats* stats) noexcept nogil
# The `want` largest after stats_row() of the same row and scratch: positions into s.val and s.idx are
# the low 32 bits of s.keys[0 .. returned count).
cdef int64_t top_row(const float* x, int64_t n, int64_t want, Scratch* s) noexcept nogil
# Draws from given non-negative weights; -1: not all finite and >= 0, or their sum is 0.
cdef int64_t multinomial_row(const float* p, int64_t n, uint64_t bits, Scratch* s) noexcept nogil
