// Which tokens of a row stay: the k largest, or the shortest prefix of the order whose mass reaches p.
//
// A rough pass (thread maxima, or a histogram of 32-bit sums) says between which values the border is; an
// exact pass sums what is above and collects what is between, which one CTA sorts. Where that cannot be
// (too many between, a wrong guess), three exact radix passes over the keys find the border.
#pragma once
#include "sampling/row.cuh"
#include "sampling/state.h"

namespace rvllm::cuda {

constexpr int kBins = 4096;       // of a rough histogram
constexpr int kMaxListed = 2048;  // candidates that can be sorted
constexpr int kDigitBins = 2048;  // of an exact histogram
constexpr int kMaxByMaxima = 64;  // largest k whose bound is taken from the threads' maxima
constexpr double kOctaves = 42;   // weights further below the largest are 0

// What a team knows of a row after one pass.
struct Scan {
    uint64_t best;  // token_key of the first of the largest; 0: the row holds a NaN
    float low;      // smallest above -inf
    float sum;      // nearly: sum of the weights relative to the largest

    __device__ bool is_nan() const { return best == 0; }
    __device__ float top() const { return value_of(best); }
};

// Values in [low, high] are candidates; those above are kept for sure.
struct Window {
    float low, high;
};

// Sums of a collecting pass, by chunk.
struct Sums {
    uint64_t all[kMaxChunks];   // weights of the elements that are kept so far
    uint64_t sure[kMaxChunks];  // of these above the window
    uint32_t n_all[kMaxChunks], n_sure[kMaxChunks];
};

enum class Verdict : int32_t {
    found,    // the cut is in the list
    all,      // nothing is cut
    near,     // the border is nearer than the weights are exact
    unknown,  // the window was wrong, or too many candidates
};

// Shared memory of a CTA. What the whole team reads or writes of rank 0's is marked *.
struct Shared {
    Scan scan[kMaxChunks];  // * every CTA gets all
    uint32_t bound[kMaxTeam];
    Window window;      // from rank 0
    Cut cut;            // from rank 0
    Verdict verdict;    // from rank 0
    int32_t token;      // from rank 0
    uint64_t n_all;     // from rank 0
    uint64_t n_sure;    // from rank 0
    uint32_t n_listed;  // *
    int32_t n_kept;     // leading entries of the list that stay
    int32_t first, last;
    Sums sums;                        // *
    ExactSum exact_all[kMaxChunks];   // *
    ExactSum exact_sure[kMaxChunks];  // *
    uint64_t warp_sums[kTeamWarps];
    uint64_t warp_sums_low[kTeamWarps];
    Finding finding;
    // An exact selection, at rank 0.
    uint32_t prefix;  // from rank 0: leading digits of the key that are known
    ExactSum above;   // before the prefix
    double target;
    uint64_t n_above, n_ties, n_ties_kept;
    // The draw, at rank 0: weights of the list's entries by chunk, in halves.
    uint32_t listed_low[kMaxChunks], listed_high[kMaxChunks];
    uint64_t rest;
    SampleRow info;
    SlotParams params;
    Edits edits;
    union {
        uint32_t bins[kBins];
        struct {
            uint64_t keys[kMaxListed];
            uint64_t weights[kMaxListed];
        } list;  // *
        struct {
            uint64_t high[kDigitBins], low[kDigitBins];
            uint32_t count[kDigitBins];
        } digits;
    };
};

// Gives all CTAs rank 0's value of a shared variable. Between two sync().
template <typename T>
__device__ void publish(const Team& team, T* variable, const T& value) {
    for (int r = 0; r < team.size; ++r) *team.of(variable, r) = value;
}

// ---- one pass ------------------------------------------------------------------------------------

// The scan of two parts.
__device__ inline Scan merge(const Scan& a, const Scan& b, float c) {
    const uint64_t best = a.best < b.best ? a.best : b.best;
    const float top = value_of(best), ta = a.top(), tb = b.top();
    const float sa = ta == top ? a.sum : a.sum * rough_exp2((ta - top) * c);
    const float sb = tb == top ? b.sum : b.sum * rough_exp2((tb - top) * c);
    return {best, fminf(a.low, b.low), sa + sb};
}

__device__ inline Scan merge_lanes(Scan s, float c) {
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) {
        Scan o;
        o.best = __shfl_xor_sync(kAllLanes, s.best, i);
        o.low = __shfl_xor_sync(kAllLanes, s.low, i);
        o.sum = __shfl_xor_sync(kAllLanes, s.sum, i);
        s = merge(s, o, c);
    }
    return s;
}

// c: log2(e) / temperature. *mine: the largest of this thread's elements. Not `all`: only the best is asked
// for.
template <bool all>
__device__ __forceinline__ Scan scan_row(const Row row, float c, const Team team, Shared& s, float* mine) {
    float top = kNothing, low = INFINITY, sum = 0;
    int32_t at = 0;
    bool nan = false;
    const int32_t chunk = row.chunk_of_warp(team);
    const auto relative = [c](float x, float scaled_top) { return rough_exp2(__fmaf_rn(x, c, -scaled_top)); };
    float scaled_top = 0;  // top * c
    each_four<8>(row, row.begin(chunk), row.end(chunk), [&](const float4& v, int32_t i) {
        const float most = fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w));
        nan |= v.x != v.x || v.y != v.y || v.z != v.z || v.w != v.w;
        if (most > top) {
            if (all) sum *= relative(top, most * c);
            top = most;
            scaled_top = top * c;
            at = i + (v.x == most ? 0 : v.y == most ? 1 : v.z == most ? 2 : 3);
        }
        if (!all) return;
        const float least = fminf(fminf(v.x, v.y), fminf(v.z, v.w));
        if (least > kNothing) {
            low = fminf(low, least);
        } else {
            for (float x : {v.x, v.y, v.z, v.w}) low = fminf(low, x > kNothing ? x : INFINITY);
        }
        if (top > kNothing) {
            sum += (relative(v.x, scaled_top) + relative(v.y, scaled_top)) +
                   (relative(v.z, scaled_top) + relative(v.w, scaled_top));
        }
    });
    *mine = top;
    const uint64_t key = token_key(top, at);
    const Scan of_warp = merge_lanes({nan ? 0 : key, low, sum}, c);
    const int32_t lane = threadIdx.x % 32;
    if (lane < team.size) *team.of(&s.scan[chunk], lane) = of_warp;
    team.sync();
    Scan whole = {token_key(kNothing, 0x7fffffff), INFINITY, 0};
    for (int32_t i = lane; i < team.size * kTeamWarps; i += 32) whole = merge(whole, s.scan[i], c);
    return merge_lanes(whole, c);
}

// Whether a cut keeps an element; `plain`: it is a bound, without a token.
template <bool plain>
struct Keeps {
    Cut cut;
    __device__ __forceinline__ bool operator()(float x, int32_t i) const {
        return plain ? x >= cut.value : cut.keeps(x, i);
    }
};
template <typename F>
__device__ __forceinline__ void with_keeps(const Cut& cut, const F& f) {
    if (cut.last == kEveryToken) {
        f(Keeps<true>{cut});
    } else {
        f(Keeps<false>{cut});
    }
}

// ---- windows -------------------------------------------------------------------------------------

// A value that at least k elements reach, and not many more: the k-th largest of a CTA's thread maxima.
__device__ inline float bound_by_maxima(float mine, int32_t k, const Team& team, Shared& s) {
    const uint32_t key = order_key(mine);
    uint32_t low = 0, high = 0xffffffffu;  // the least key that k threads reach
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (__syncthreads_count(key <= middle) >= k) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    if (threadIdx.x < static_cast<unsigned>(team.size)) *team.of(&s.bound[team.rank], threadIdx.x) = low;
    team.sync();
    uint32_t best = s.bound[0];
    for (int r = 1; r < team.size; ++r) best = min(best, s.bound[r]);
    return key_value(best);
}

// Where a running sum of `add(value)` over the elements that `cut` keeps, largest first, reaches
// share * total + count, give or take a share and an amount. Values below `bottom` do not count.
struct Target {
    double share, count;
    double error_share, error_count;
};
template <typename F>
__device__ __forceinline__ Window window_by_histogram(const Row row, const Cut cut, float top, float bottom,
                                                      const Target& t, const Team team, Shared& s,
                                                      const F add) {
    const float scale = kBins / (top - bottom), scaled_top = top * scale;
    for (int32_t b = threadIdx.x; b < kBins; b += kTeamThreads) s.bins[b] = 0;
    __syncthreads();
    const int32_t chunk = row.chunk_of_warp(team);
    with_keeps(cut, [&](const auto keeps) {
        each(row, row.begin(chunk), row.end(chunk), [&](float x, int32_t i) {
            const float b = __fmaf_rn(x, -scale, scaled_top);
            if (b < kBins && keeps(x, i)) atomicAdd(&s.bins[max(0, static_cast<int32_t>(b))], add(x));
        });
    });
    team.sync();
    if (team.rank == 0) {
        constexpr int kOwn = kBins / kTeamThreads;
        uint64_t own[kOwn], sum = 0;
#pragma unroll
        for (int j = 0; j < kOwn; ++j) {
            own[j] = 0;
            for (int r = 0; r < team.size; ++r) own[j] += team.of(s.bins, r)[threadIdx.x * kOwn + j];
            sum += own[j];
        }
        const uint64_t before = block_scan(sum, s.warp_sums);
        if (threadIdx.x == kTeamThreads - 1) {
            s.sums.all[0] = before + sum;
            s.first = s.last = kBins - 1;
        }
        __syncthreads();
        const double total = static_cast<double>(s.sums.all[0]), target = t.share * total + t.count;
        const double error = t.error_share * total + t.error_count;
        const double from = target - error, to = target + error;
        uint64_t upto = before;
        for (int j = 0; j < kOwn; ++j) {
            const double last = static_cast<double>(upto);
            upto += own[j];
            if (last < from && from <= static_cast<double>(upto)) s.first = threadIdx.x * kOwn + j;
            if (last < to && to <= static_cast<double>(upto)) s.last = threadIdx.x * kOwn + j;
            if (upto > 0 && last == 0 && from <= 0) s.first = 0;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            Window w;
            w.high = s.first == 0 ? INFINITY : top - (s.first - 0.01f) / scale;
            w.low = s.last == kBins - 1 ? bottom : top - (s.last + 1.01f) / scale;
            publish(team, &s.window, w);
        }
    }
    team.sync();
    return s.window;
}

// ---- the exact passes ----------------------------------------------------------------------------
// All of them sum over the elements that `cut` keeps, into s.sums of rank 0. Those in the window are
// collected there (s.list.keys; s.n_listed may be more than fit).

__device__ __forceinline__ void put_sum(uint64_t* sums, int32_t chunk, uint64_t sum, const Team& team) {
    sum = warp_total(sum);
    if (threadIdx.x % 32 == 0) team.of(sums, 0)[chunk] = sum;
}
__device__ __forceinline__ void put_sum(uint32_t* sums, int32_t chunk, uint32_t sum, const Team& team) {
    sum = warp_total(sum);
    if (threadIdx.x % 32 == 0) team.of(sums, 0)[chunk] = sum;
}

// An empty list at rank 0.
struct List {
    uint32_t* n;
    uint64_t* keys;

    __device__ static List empty(const Team& team, Shared& s) {
        if (team.rank == 0 && threadIdx.x == 0) s.n_listed = 0;
        team.sync();
        return {team.of(&s.n_listed, 0), team.of(s.list.keys, 0)};
    }
    __device__ __forceinline__ void push(float x, int32_t i) const {
        const uint32_t at = atomicAdd(n, 1u);
        if (at < kMaxListed) keys[at] = token_key(x, i);
    }
};

// All are sure: for a draw without a border.
__device__ __forceinline__ void sum_kept(const Row row, const Cut cut, const Weigh weigh, const Team team,
                                         Shared& s) {
    uint64_t sure = 0;
    const int32_t chunk = row.chunk_of_warp(team);
    with_keeps(cut, [&](const auto keeps) {
        each(row, row.begin(chunk), row.end(chunk), [&](float x, int32_t i) {
            const uint64_t w = weigh(x);
            sure += keeps(x, i) ? w : 0;
        });
    });
    put_sum(s.sums.sure, chunk, sure, team);
    team.sync();
}

// For top-k: weights of what is sure, and counts. Few elements reach the window.
__device__ __forceinline__ void collect_largest(const Row row, const Cut cut, const Window window,
                                                const Weigh weigh, const Team team, Shared& s) {
    const List list = List::empty(team, s);
    uint64_t sure = 0;
    uint32_t n_sure = 0, n_all = 0;
    const int32_t chunk = row.chunk_of_warp(team);
    with_keeps(cut, [&](const auto keeps) {
        each_four(row, row.begin(chunk), row.end(chunk), [&](const float4& v, int32_t first) {
            const bool any = fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w)) >= window.low;
            const auto one = [&](float x, int32_t i) {
                const bool kept = keeps(x, i);
                n_all += kept;
                if (!any || !kept || !(x >= window.low)) return;
                if (x > window.high) {
                    sure += weigh(x);
                    ++n_sure;
                } else {
                    list.push(x, i);
                }
            };
            one(v.x, first);
            one(v.y, first + 1);
            one(v.z, first + 2);
            one(v.w, first + 3);
        });
    });
    put_sum(s.sums.sure, chunk, sure, team);
    put_sum(s.sums.n_sure, chunk, n_sure, team);
    put_sum(s.sums.n_all, chunk, n_all, team);
    team.sync();
}

// For top-p: weights of everything and of what is sure.
__device__ __forceinline__ void collect_border(const Row row, const Cut cut, const Window window,
                                               const Weigh weigh, const Team team, Shared& s) {
    const List list = List::empty(team, s);
    uint64_t sure = 0, all = 0;
    const int32_t chunk = row.chunk_of_warp(team);
    with_keeps(cut, [&](const auto keeps) {
        each(row, row.begin(chunk), row.end(chunk), [&](float x, int32_t i) {
            const bool kept = keeps(x, i);
            const uint64_t w = weigh(x);
            all += kept ? w : 0;
            if (kept && x > window.high) sure += w;
            if (kept && x <= window.high && x >= window.low) list.push(x, i);
        });
    });
    put_sum(s.sums.sure, chunk, sure, team);
    put_sum(s.sums.all, chunk, all, team);
    team.sync();
}

// Sum of a per-chunk array, in every thread of a full warp.
template <typename T>
__device__ uint64_t over_chunks(const T* v, const Team& team) {
    uint64_t sum = 0;
    for (int32_t i = threadIdx.x % 32; i < team.size * kTeamWarps; i += 32) sum += v[i];
    return warp_total(sum);
}
__device__ inline ExactSum over_chunks(const ExactSum* v, const Team& team) {
    ExactSum sum = {0, 0};
    for (int32_t i = threadIdx.x % 32; i < team.size * kTeamWarps; i += 32) sum = sum.plus(v[i]);
    return {warp_total(sum.high), warp_total(sum.low)};
}

// Sorts the list (bitonic) by one CTA.
__device__ inline void sort_list(Shared& s, int32_t n) {
    int32_t size = 2;
    while (size < n) size *= 2;
    uint64_t* keys = s.list.keys;
    for (int32_t i = n + threadIdx.x; i < size; i += kTeamThreads) keys[i] = ~0ull;
    for (int32_t span = 2; span <= size; span *= 2) {
        for (int32_t step = span / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int32_t t = threadIdx.x; t < size / 2; t += kTeamThreads) {
                const int32_t i = 2 * t - (t & (step - 1)), j = i + step;
                const uint64_t a = keys[i], b = keys[j];
                if ((a > b) == ((i & span) == 0)) {
                    keys[i] = b;
                    keys[j] = a;
                }
            }
        }
    }
    __syncthreads();
}

__device__ inline void weigh_list(Shared& s, int32_t n, const Exponents& e) {
    for (int32_t i = threadIdx.x; i < n; i += kTeamThreads)
        s.list.weights[i] = e.weigh(value_of(s.list.keys[i]));
    __syncthreads();
}

__device__ inline void cut_at(Shared& s, int32_t i) {
    s.n_kept = i + 1;
    s.cut = {value_of(s.list.keys[i]), token_of(s.list.keys[i])};
}

// Cuts after the k-th element; sorts the list. By rank 0, after collect().
__device__ inline Verdict decide_count(int64_t k, const Team& team, Shared& s) {
    const int64_t n = s.n_listed;
    const int64_t n_sure = static_cast<int64_t>(over_chunks(s.sums.n_sure, team));
    const int64_t n_all = static_cast<int64_t>(over_chunks(s.sums.n_all, team));
    if (n_all < k) return Verdict::all;
    if (n > kMaxListed || n_sure >= k || n_sure + n < k) return Verdict::unknown;
    sort_list(s, static_cast<int32_t>(n));
    if (threadIdx.x == 0) cut_at(s, static_cast<int32_t>(k - 1 - n_sure));
    __syncthreads();
    return Verdict::found;
}

// Cuts the first n entries of the sorted and weighed list where the mass, with `sure` before it, reaches
// p * total. `n_all`: elements that make up the total; for the error see mass_error() of native/rows.pyx. By
// one CTA.
__device__ inline Verdict decide_mass(double p, int32_t n, uint64_t sure, uint64_t total, double n_all,
                                      double slack, Shared& s) {
    const double target = p * static_cast<double>(total);
    const double error = 2 * slack * (1 - p) * target + n_all + 1;
    const double from = target - error, to = fmin(target + error, static_cast<double>(total));
    if (sure > 0 && static_cast<double>(sure) >= from) return Verdict::unknown;
    constexpr int kOwn = kMaxListed / kTeamThreads;
    const int32_t first = threadIdx.x * kOwn;
    uint64_t own[kOwn], sum = 0;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
        own[j] = first + j < n ? s.list.weights[first + j] : 0;
        sum += own[j];
    }
    if (threadIdx.x == 0) s.first = s.last = kMaxListed;
    uint64_t upto = sure + block_scan(sum, s.warp_sums);
    for (int j = 0; j < kOwn; ++j) {
        upto += own[j];
        if (first + j >= n) break;
        if (static_cast<double>(upto) >= to) atomicMin(&s.last, first + j);
        if (static_cast<double>(upto) >= from) {
            atomicMin(&s.first, first + j);
        }
    }
    __syncthreads();
    if (s.last >= n) return Verdict::unknown;
    if (threadIdx.x == 0) cut_at(s, s.last);
    const bool clear = s.first == s.last;
    __syncthreads();
    return clear ? Verdict::found : Verdict::near;
}

// The sums of decide_mass() in float64, for a border too near to tell: by the team.
__device__ __noinline__ void sum_exactly(const Row row, const Cut cut, const Window window, const Exponents e,
                                         const Team team, Shared& s) {
    ExactSum all = {0, 0}, sure = {0, 0};
    const int32_t chunk = row.chunk_of_warp(team);
    each(row, row.begin(chunk), row.end(chunk), [&](float x, int32_t i) {
        if (!cut.keeps(x, i)) return;
        const uint64_t w = e.exact_weight(x);
        all.add(w);
        if (x > window.high) sure.add(w);
    });
    all = {warp_total(all.high), warp_total(all.low)};
    sure = {warp_total(sure.high), warp_total(sure.low)};
    if (threadIdx.x % 32 == 0) {
        *team.of(&s.exact_all[chunk], 0) = all;
        *team.of(&s.exact_sure[chunk], 0) = sure;
    }
    team.sync();
}

// Then, by rank 0: cuts the first n entries of the list.
__device__ inline void decide_exactly(double p, int32_t n, const ExactSum& sure, const ExactSum& all,
                                      const Exponents& e, Shared& s) {
    const double target = p * all.value();
    constexpr int kOwn = kMaxListed / kTeamThreads;
    const int32_t first = threadIdx.x * kOwn;
    ExactSum own[kOwn], sum = {0, 0};
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
        own[j] = {0, 0};
        if (first + j < n) own[j].add(e.exact_weight(value_of(s.list.keys[first + j])));
        sum = sum.plus(own[j]);
    }
    if (threadIdx.x == 0) s.first = kMaxListed;
    ExactSum upto = sure.plus({block_scan(sum.high, s.warp_sums), block_scan(sum.low, s.warp_sums_low)});
    for (int j = 0; j < kOwn; ++j) {
        upto = upto.plus(own[j]);
        if (first + j < n && upto.value() >= target) atomicMin(&s.first, first + j);
    }
    __syncthreads();
    if (threadIdx.x == 0 && s.first < n) cut_at(s, s.first);
    __syncthreads();
}

}  // namespace rvllm::cuda
