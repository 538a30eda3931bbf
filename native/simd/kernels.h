// The inner loops of sampling over one row of float32 logits, one table of functions per instruction
// set. Every set computes the same bits.
//
// Weights are fixed point: w(x) = round(2^40 * 2^(x*c - m)), c = log2(e) / temperature, m near the
// largest exponent. The exponential is one polynomial with explicit FMAs; sums of integers do not
// depend on their order, so neither blocking, threads nor lanes can change a draw.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

namespace rvllm {

constexpr int kLanes = 16;              // virtual lanes of every set
constexpr int64_t kGroup = 1024;        // elements per group: 64 vectors of kLanes
constexpr int kFixedBits = 40;          // binary places of a weight
constexpr int64_t kBlock = 64;          // elements with a maximum of their own: kLanes blocks per group
constexpr int64_t kPad = 64;            // elements that collect() may write past the last one
constexpr int64_t kMaxVocab = 1 << 22;  // sums of weights stay below 2^63

constexpr int64_t kBins = 512;         // of a histogram over values
constexpr int64_t kFew = 128;          // candidates that are sorted at once
constexpr double kGreedyBelow = 1e-5;  // temperatures under it mean greedy, as in vLLM

inline int64_t n_groups(int64_t n) {
    return (n + kGroup - 1) / kGroup;
}

// How to turn a logit of one row into its weight.
struct ExpParams {
    float base;   // subtracted first; 0 unless the exponents are huge
    float d_min;  // lowest x - base that is told apart: below it a weight is 0
    float c_hi, c_lo;
    float magic;  // 1.5 * 2^23 + kFixedBits - m: rounds to an integer, and scales the result
    double c, m;
    double slack;  // bound of a weight's relative error before rounding to fixed point
};

inline ExpParams exp_params(float max, double temperature) {
    ExpParams e;
    e.c = 1.4426950408889634074 / std::fmin(temperature, 1e30);
    e.c_hi = static_cast<float>(e.c);
    e.c_lo = static_cast<float>(e.c - e.c_hi);
    const double top = max * e.c;
    if (std::fabs(top) <= 65536) {  // n and f of x*c = n + f come out exact enough: no subtraction
        e.base = 0;
        e.m = std::nearbyint(top);
        e.slack = 1.3e-7;
    } else {
        e.base = max;
        e.m = 0;
        e.slack = 3e-6;
    }
    e.magic = static_cast<float>(12582912.0 + kFixedBits - e.m);
    e.d_min = static_cast<float>(std::fmax((e.m - 64) / e.c, -std::numeric_limits<float>::max()));
    return e;
}

constexpr double kRoughMass = 1.3e-7;  // relative error of rough_mass() besides that of the weights

// A sum of weights computed in float64, each a multiple of 2^-60: nearer than float64 sums, and in any order.
struct ExactSum {
    uint64_t high = 0, low = 0;  // in two halves of 32 bits and their carries
    void add(uint64_t w) {
        high += w >> 32;
        low += w & 0xffffffffu;
    }
    double value() const {
        return static_cast<double>(high + (low >> 32)) * 4294967296.0 +
               static_cast<double>(low & 0xffffffffu);
    }
};

struct SamplingKernels {
    const char* name;

    // Largest of each block into block_max [n_groups * kLanes] (-inf beyond the last), of all into *max.
    // True when the row holds a NaN (then the maxima mean nothing).
    bool (*scan_max)(const float* x, int64_t n, float* block_max, float* max);
    // First index of the largest; -1: a NaN, or nothing but -inf. `lane_max`: [n_groups * kLanes] of scratch.
    int64_t (*argmax)(const float* x, int64_t n, float* lane_max);
    int64_t (*count_above)(const float* x, int64_t n, float v);  // elements > v

    // Elements >= lo and their indices, in order; writes up to kPad more.
    int64_t (*collect)(const float* x, int64_t n, float lo, const float* block_max, float* val, int32_t* idx);

    // A value that at least k of v reach, and few more; n: a multiple of kLanes. Changes v.
    float (*kth_bound)(float* v, int64_t n, int64_t k);
    // Sorts up to kFew keys (order.h) that are in order of their positions.
    void (*sort_few)(uint64_t* keys, int64_t n);

    // Sum of the weights of elements >= lo, per group and in all. `block_max` may be null.
    uint64_t (*mass)(const float* x, int64_t n, const ExpParams* e, float lo, const float* block_max,
                     uint64_t* group_mass);
    // The same sum but for kRoughMass of it, in less time. `next` (may be null): another n elements to fetch
    // into the cache meanwhile.
    uint64_t (*rough_mass)(const float* x, int64_t n, const ExpParams* e, float lo, const float* block_max,
                           const float* next);
    // A value that elements of `enough` weight reach, of all >= lo, which weigh `all`; and few more do: going
    // by a sample. *certain: one that they do reach, going by the maxima of blocks, or lo. n >= kGroup;
    // `scratch`: [n_groups * kLanes].
    float (*mass_bound)(const float* x, int64_t n, const ExpParams* e, float lo, const float* block_max,
                        double all, double enough, float* scratch, float* certain);
    // The weights, of which it returns the sum; fills w up to a whole vector.
    uint64_t (*weights)(const float* x, int64_t n, const ExpParams* e, uint64_t* w);

    // Adds w[i] (1 each, if null) to the bin of x[i]: kBins of them, from `top` downwards; the last takes the
    // rest.
    void (*histogram)(const float* x, const uint64_t* w, int64_t n, float top, float bins_per_unit,
                      uint64_t* hist);
    // sort_key(x[i], i) of the elements in bins first..last; returns how many.
    int64_t (*pick_bins)(const float* x, int64_t n, float top, float bins_per_unit, int64_t first,
                         int64_t last, uint64_t* keys);

    // Weights from float64: their total over elements >= lo, and of those > above.
    void (*exact_mass)(const float* x, int64_t n, const ExpParams* e, float lo, float above, ExactSum* total,
                       ExactSum* part);
    uint64_t (*exact_weight)(float x, const ExpParams* e);

    // Probabilities into y (may be x): one pass over x, a group at a time and relative to the largest so far,
    // and one that scales. `tops` and `group_mass`: [n_groups] of scratch. False: the row holds a NaN or
    // +inf, or nothing but -inf; then finite elements of y before the first such may be overwritten by finite
    // values.
    bool (*softmax)(const float* x, int64_t n, float* y, float* tops, uint64_t* group_mass);
    void (*divide)(float* x, int64_t n, float by);
    void (*subtract)(const float* x, int64_t n, float first, float second, float* y);  // (x-first)-second

    // Sets all but elements > v, and those == v up to index `last`, to -inf. Returns how many stay.
    int64_t (*mask)(float* x, int64_t n, float v, int64_t last);
    // Sets elements whose bit is 0 to -inf; n_words of 32 bits, absent ones count as 0.
    void (*mask_bits)(float* x, int64_t n, const int32_t* bits, int64_t n_words);

    // Multinomial over given probabilities: w = round(p * scale). *max: the largest; NaN if not all are
    // finite and >= 0.
    uint64_t (*prob_mass)(const float* p, int64_t n, float scale, uint64_t* group_mass, float* max);
    // Fills w up to a whole vector.
    void (*prob_weights)(const float* p, int64_t n, float scale, uint64_t* w);

    // x[ids[i]] <- penalised. Reads all before it writes any, so repeated ids count once. counts:
    // by position (dense == false), by token id (dense == true), or null (repetition only).
    void (*penalize)(float* x, const int32_t* ids, int64_t n, const int32_t* counts, bool dense,
                     float repetition, float frequency, float presence, float* scratch);
    // The same with counts in tally[token], where -1 stands for a count of 0. What was penalised has its
    // tally set to 0, and what has a tally of 0 is left alone: so repeated ids count once.
    void (*penalize_tally)(float* x, const int32_t* ids, int64_t n, int32_t* tally, float repetition,
                           float frequency, float presence);
    // The same for every token with counts[token] > 0 ([n], by token id).
    void (*penalize_dense)(float* x, int64_t n, const int32_t* counts, float repetition, float frequency,
                           float presence);

    bool (*ids_below)(const int32_t* ids, int64_t n, int64_t limit);  // all in [0, limit)?

    void (*from_half)(const uint16_t* src, int64_t n, float* dst);
    void (*to_half)(const float* src, int64_t n, uint16_t* dst);
    void (*from_bfloat)(const uint16_t* src, int64_t n, float* dst);
    void (*to_bfloat)(const float* src, int64_t n, uint16_t* dst);
};

const SamplingKernels* sampling_kernels();  // for isa()

extern const SamplingKernels kSamplingPortable;
extern const SamplingKernels kSamplingAvx2;
extern const SamplingKernels kSamplingAvx512;

}  // namespace rvllm
