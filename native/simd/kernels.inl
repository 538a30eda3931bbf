// The loops of SamplingKernels over sixteen virtual lanes. Each X_avx2.cpp, ... includes a lanes
// header and then this; everything is in an unnamed namespace, so no code of one instruction set can
// be linked into another.
#include <cstring>

#include "../half.h"
#include "kernels.h"
#include "order.h"

namespace rvllm {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// The last, partial vector of a row; lanes beyond it hold `fill`.
inline F load_part(const float* p, int64_t n, float fill) {
    float v[kLanes];
    for (int l = 0; l < kLanes; ++l) v[l] = fill;
    std::memcpy(v, p, static_cast<size_t>(n) * sizeof(float));
    return load(v);
}
inline void store_part(float* p, int64_t n, F x) {
    float v[kLanes];
    store(v, x);
    std::memcpy(p, v, static_cast<size_t>(n) * sizeof(float));
}

inline F load_int_part(const int32_t* p, int64_t n) {
    int32_t v[kLanes] = {};
    std::memcpy(v, p, static_cast<size_t>(n) * sizeof v[0]);
    return load_int(v);
}

// f(vector, offset, lanes) over [begin, end).
template <class Fn>
inline void each_vector(const float* x, int64_t begin, int64_t end, float fill, const Fn& f) {
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) f(load(x + i), i, kLanes);
    if (i < end) f(load_part(x + i, end - i, fill), i, static_cast<int>(end - i));
}

// y = f(x), element by element.
template <class Fn>
inline void map(const float* x, float* y, int64_t n, const Fn& f) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)));
    if (i < n) store_part(y + i, n - i, f(load_part(x + i, n - i, 0)));
}

inline uint32_t lanes_below(int64_t n) { return n >= kLanes ? 0xffffu : (1u << n) - 1; }

inline bool group_reaches(const float* lane_max, int64_t start, float lo) {
    return !lane_max || ge(load(lane_max + start / kGroup * kLanes), splat(lo)) != 0;
}

// ---- exponential --------------------------------------------------------------------------------
// 2^(n + f), |f| <= 0.5: minimax polynomial of degree 6 with p(0) = 1, relative error 2^-28.
class Exp {
public:
    explicit Exp(const ExpParams& e)
        : base_(splat(e.base)), d_min_(splat(e.d_min)), hi_(splat(e.c_hi)), lo_(splat(e.c_lo)), magic_(splat(e.magic)) {}

    F operator()(F x) const {
        const F d = maximum(sub(x, base_), d_min_);
        const F shifted = fma(d, hi_, magic_);
        const F f = fma(d, lo_, fma(d, hi_, sub(magic_, shifted)));
        F p = splat(0.000154626107578f);
        p = fma(p, f, splat(0.00134017751254f));
        p = fma(p, f, splat(0.00961805373433f));
        p = fma(p, f, splat(0.0555032382582f));
        p = fma(p, f, splat(0.240226509362f));
        p = fma(p, f, splat(0.693147208313f));
        p = fma(p, f, splat(1.0f));
        return scale_by(p, shifted);
    }

private:
    F base_, d_min_, hi_, lo_, magic_;
};

// The same in float64, degree 11, relative error 2^-55 before rounding, to multiples of 2^-60; 1 at x*c == m.
inline uint64_t exact_weight_at(double d, double d_min, double c, double m) {
    constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
    d = d > d_min ? d : d_min;
    const double shifted = __builtin_fma(d, c, magic - m);
    const double f = __builtin_fma(d, c, (magic - m) - shifted);
    double p = 4.0780451108401166017e-10;
    p = __builtin_fma(p, f, 7.0725702206402868234e-9);
    p = __builtin_fma(p, f, 1.0180647844774274317e-7);
    p = __builtin_fma(p, f, 1.3215442676553933548e-6);
    p = __builtin_fma(p, f, 0.000015252727384740496593);
    p = __builtin_fma(p, f, 0.00015403530441569449913);
    p = __builtin_fma(p, f, 0.0013333558153440419234);
    p = __builtin_fma(p, f, 0.0096181291076070046525);
    p = __builtin_fma(p, f, 0.055504108664790392983);
    p = __builtin_fma(p, f, 0.24022650695910098001);
    p = __builtin_fma(p, f, 0.69314718055994569676);
    p = __builtin_fma(p, f, 1.0);
    uint64_t bits, k;
    std::memcpy(&bits, &p, 8);
    std::memcpy(&k, &shifted, 8);
    bits += k << 52;
    std::memcpy(&p, &bits, 8);
    return static_cast<uint64_t>(static_cast<int64_t>(p * 1152921504606846976.0));  // 2^60
}

inline double exact_floor(const ExpParams* e) { return (e->m - 1000) / e->c; }

uint64_t exact_weight(float x, const ExpParams* e) {
    return exact_weight_at(static_cast<double>(x) - e->base, exact_floor(e), e->c, e->m);
}

void exact_mass(const float* x, int64_t n, const ExpParams* e, float lo, float above, ExactSum* total,
                ExactSum* part) {
    const double base = e->base, d_min = exact_floor(e), c = e->c, m = e->m;
    uint64_t all_high[kLanes] = {}, all_low[kLanes] = {}, high[kLanes] = {}, low[kLanes] = {};
    for (int64_t i = 0; i < n; i += kLanes) {
        float v[kLanes];
        store(v, i + kLanes <= n ? load(x + i) : load_part(x + i, n - i, kLowest));
        for (int l = 0; l < kLanes; ++l) {
            const uint64_t w = exact_weight_at(v[l] - base, d_min, c, m);
            const uint64_t counted = v[l] >= lo && v[l] > kLowest ? w : 0, counted_above = v[l] > above ? w : 0;
            all_high[l] += counted >> 32;
            all_low[l] += counted & 0xffffffffu;
            high[l] += counted_above >> 32;
            low[l] += counted_above & 0xffffffffu;
        }
    }
    *total = *part = ExactSum();
    for (int l = 0; l < kLanes; ++l) {
        total->high += all_high[l];
        total->low += all_low[l];
        part->high += high[l];
        part->low += low[l];
    }
}

// ---- scans --------------------------------------------------------------------------------------
bool scan_max(const float* x, int64_t n, float* lane_max, float* max) {
    F best = splat(kLowest);
    uint32_t nan = 0;
    for (int64_t start = 0; start < n; start += kGroup) {
        const int64_t end = smaller(n, start + kGroup);
        F m0 = splat(kLowest), m1 = m0, m2 = m0, m3 = m0;
        int64_t i = start;
        for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
            const F a = load(x + i), b = load(x + i + kLanes), c = load(x + i + 2 * kLanes), d = load(x + i + 3 * kLanes);
            m0 = maximum(a, m0);
            m1 = maximum(b, m1);
            m2 = maximum(c, m2);
            m3 = maximum(d, m3);
            nan |= unordered(a, b) | unordered(c, d);
        }
        each_vector(x, i, end, kLowest, [&](F v, int64_t, int) {
            m0 = maximum(v, m0);
            nan |= unordered(v, v);
        });
        m0 = maximum(maximum(m0, m1), maximum(m2, m3));
        store(lane_max + start / kGroup * kLanes, m0);
        best = maximum(m0, best);
    }
    float v[kLanes];
    store(v, best);
    float top = v[0];
    for (int l = 1; l < kLanes; ++l) top = v[l] > top ? v[l] : top;
    *max = top;
    return nan != 0;
}

int64_t find_equal(const float* x, int64_t n, float value) {
    const F v = splat(value);
    int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        const uint64_t m = static_cast<uint64_t>(eq(load(x + i), v)) |
                           static_cast<uint64_t>(eq(load(x + i + kLanes), v)) << 16 |
                           static_cast<uint64_t>(eq(load(x + i + 2 * kLanes), v)) << 32 |
                           static_cast<uint64_t>(eq(load(x + i + 3 * kLanes), v)) << 48;
        if (m) return i + __builtin_ctzll(m);
    }
    for (; i < n; ++i) {
        if (x[i] == value) return i;
    }
    return -1;
}

int64_t count_above(const float* x, int64_t n, float value) {
    const F v = splat(value);
    int64_t count = 0;
    each_vector(x, 0, n, kLowest, [&](F a, int64_t, int) { count += __builtin_popcount(gt(a, v)); });
    return count;
}

int64_t collect(const float* x, int64_t n, float lo, const float* lane_max, float* val, int32_t* idx) {
    const F v = splat(lo);
    int64_t k = 0;
    for (int64_t start = 0; start < n; start += kGroup) {
        if (!group_reaches(lane_max, start, lo)) continue;
        const int64_t end = smaller(n, start + kGroup);
        int64_t i = start;
        for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
            const F a = load(x + i), b = load(x + i + kLanes), c = load(x + i + 2 * kLanes), d = load(x + i + 3 * kLanes);
            if (!ge(maximum(maximum(a, b), maximum(c, d)), v)) continue;
            const int32_t at = static_cast<int32_t>(i);
            k += compress(val + k, idx + k, x + i, a, at, ge(a, v));
            k += compress(val + k, idx + k, x + i + kLanes, b, at + kLanes, ge(b, v));
            k += compress(val + k, idx + k, x + i + 2 * kLanes, c, at + 2 * kLanes, ge(c, v));
            k += compress(val + k, idx + k, x + i + 3 * kLanes, d, at + 3 * kLanes, ge(d, v));
        }
        each_vector(x, i, end, kLowest, [&](F a, int64_t at, int lanes) {
            k += compress(val + k, idx + k, x + at, a, static_cast<int32_t>(at), ge(a, v) & lanes_below(lanes));
        });
    }
    return k;
}

// ---- weights ------------------------------------------------------------------------------------
uint64_t mass(const float* x, int64_t n, const ExpParams* e, float lo, const float* lane_max, uint64_t* group_mass) {
    const Exp exp(*e);
    const F bound = splat(lo), zero = splat(0);
    const float floor = e->base + e->d_min > lo ? e->base + e->d_min : lo;
    uint64_t total = 0;
    for (int64_t start = 0; start < n; start += kGroup) {
        uint64_t sum = 0;
        if (group_reaches(lane_max, start, floor)) {
            Fixed s = zero_fixed();
            each_vector(x, start, smaller(n, start + kGroup), kLowest,
                        [&](F a, int64_t, int) { s = add_fixed(s, to_fixed(select(ge(a, bound), exp(a), zero))); });
            sum = sum_fixed(s);
        }
        group_mass[start / kGroup] = sum;
        total += sum;
    }
    return total;
}

uint64_t mass_collect(const float* x, int64_t n, const ExpParams* e, float lo, float guess, const float* lane_max,
                      float* val, int32_t* idx, int64_t* n_collected) {
    const Exp exp(*e);
    const F bound = splat(lo), wanted = splat(guess), zero = splat(0);
    const float floor = e->base + e->d_min > lo ? e->base + e->d_min : lo;
    uint64_t total = 0;
    int64_t k = 0;
    for (int64_t start = 0; start < n; start += kGroup) {
        if (!group_reaches(lane_max, start, floor < guess ? floor : guess)) continue;
        Fixed s = zero_fixed();
        each_vector(x, start, smaller(n, start + kGroup), kLowest, [&](F a, int64_t at, int lanes) {
            s = add_fixed(s, to_fixed(select(ge(a, bound), exp(a), zero)));
            const uint32_t m = ge(a, wanted) & lanes_below(lanes);
            k += compress(val + k, idx + k, x + at, a, static_cast<int32_t>(at), m);
        });
        total += sum_fixed(s);
    }
    *n_collected = k;
    return total;
}

uint64_t weights(const float* x, int64_t n, const ExpParams* e, uint64_t* w) {
    const Exp exp(*e);
    Fixed total = zero_fixed();
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        const Fixed v = to_fixed(exp(load(x + i)));
        store_fixed(w + i, v);
        total = add_fixed(total, v);
    }
    if (i < n) {
        const Fixed v = to_fixed(exp(load_part(x + i, n - i, kLowest)));
        uint64_t part[kLanes];
        store_fixed(part, v);
        std::memcpy(w + i, part, static_cast<size_t>(n - i) * sizeof part[0]);
        total = add_fixed(total, v);
    }
    return sum_fixed(total);
}

// ---- histograms ---------------------------------------------------------------------------------
// Monotone in x, so bins are value ranges.
inline F bins_of(F x, F top, F bins_per_unit) {
    return minimum(mul(sub(top, x), bins_per_unit), splat(static_cast<float>(kBins - 1)));
}

void histogram(const float* x, const uint64_t* w, int64_t n, float top, float bins_per_unit, uint64_t* hist) {
    uint64_t other[kBins] = {};  // of every second element: neighbours in one bin do not wait for each other
    const F t = splat(top), s = splat(bins_per_unit);
    each_vector(x, 0, n, top, [&](F a, int64_t at, int lanes) {
        int32_t b[kLanes];
        store_int(b, bins_of(a, t, s));
        if (lanes == kLanes && w) {
            for (int l = 0; l < kLanes; l += 2) {
                hist[b[l]] += w[at + l];
                other[b[l + 1]] += w[at + l + 1];
            }
        } else {
            for (int l = 0; l < lanes; ++l) hist[b[l]] += w ? w[at + l] : 1;
        }
    });
    for (int64_t b = 0; b < kBins; ++b) hist[b] += other[b];
}

int64_t pick_bins(const float* x, int64_t n, float top, float bins_per_unit, int64_t first, int64_t last,
                  uint64_t* keys) {
    const F t = splat(top), s = splat(bins_per_unit);
    const F begin = splat(static_cast<float>(first)), end = splat(static_cast<float>(last + 1));
    int64_t k = 0;
    each_vector(x, 0, n, top, [&](F a, int64_t at, int lanes) {
        const F b = bins_of(a, t, s);
        for (uint32_t m = ge(b, begin) & gt(end, b) & lanes_below(lanes); m; m &= m - 1) {
            const int64_t i = at + __builtin_ctz(m);
            keys[k++] = sort_key(x[i], static_cast<uint32_t>(i));
        }
    });
    return k;
}

uint64_t exp_store(const float* x, int64_t n, const ExpParams* e, float* y) {
    // Lower floor than for a draw: a probability of 2^-150 is still a number here.
    ExpParams deep = *e;
    deep.d_min = static_cast<float>(std::fmax((e->m - 150) / e->c, -std::numeric_limits<float>::max()));
    const Exp exp(deep);
    const F bound = splat(deep.d_min + deep.base), zero = splat(0);
    uint64_t total = 0;
    for (int64_t start = 0; start < n; start += kGroup) {
        Fixed s = zero_fixed();
        each_vector(x, start, smaller(n, start + kGroup), kLowest, [&](F a, int64_t at, int lanes) {
            const F w = select(gt(a, bound), exp(a), zero);
            s = add_fixed(s, to_fixed(w));
            if (lanes == kLanes) {
                store(y + at, w);
            } else {
                store_part(y + at, lanes, w);
            }
        });
        total += sum_fixed(s);
    }
    return total;
}

// ---- whole rows in place ------------------------------------------------------------------------
void scale(float* x, int64_t n, float by) {
    const F b = splat(by);
    map(x, x, n, [&](F a) { return mul(a, b); });
}

void divide(float* x, int64_t n, float by) {
    const F b = splat(by);
    map(x, x, n, [&](F a) { return divide(a, b); });
}

void subtract(const float* x, int64_t n, float first, float second, float* y) {
    const F a = splat(first), b = splat(second);
    map(x, y, n, [&](F v) { return sub(sub(v, a), b); });
}

int64_t mask(float* x, int64_t n, float value, int64_t last) {
    const F v = splat(value), lowest = splat(kLowest);
    int64_t kept = 0;
    const auto part = [&](int64_t begin, int64_t end, bool ties) {
        each_vector(x, begin, end, kLowest, [&](F a, int64_t at, int lanes) {
            const uint32_t keep = (ties ? ge(a, v) : gt(a, v)) & lanes_below(lanes);
            kept += __builtin_popcount(keep);
            const F r = select(keep, a, lowest);
            if (lanes == kLanes) {
                store(x + at, r);
            } else {
                store_part(x + at, lanes, r);
            }
        });
    };
    const int64_t split = smaller(n, last + 1);
    part(0, split, true);
    part(split, n, false);
    return kept;
}

void mask_bits(float* x, int64_t n, const int32_t* bits, int64_t n_words) {
    const F lowest = splat(kLowest);
    for (int64_t i = 0; i < n; i += kLanes) {
        const uint32_t word = i / 32 < n_words ? static_cast<uint32_t>(bits[i / 32]) : 0;
        const uint32_t keep = word >> (i % 32) & 0xffff;
        if (i + kLanes <= n) {
            if (keep != 0xffff) store(x + i, select(keep, load(x + i), lowest));
        } else {
            store_part(x + i, n - i, select(keep, load_part(x + i, n - i, 0), lowest));
        }
    }
}

// ---- given probabilities ------------------------------------------------------------------------
uint64_t prob_mass(const float* p, int64_t n, float by, uint64_t* group_mass, float* min, float* max, bool* nan) {
    const F b = splat(by);
    F low = splat(0), high = splat(0);
    uint32_t bad = 0;
    uint64_t total = 0;
    for (int64_t start = 0; start < n; start += kGroup) {
        Fixed s = zero_fixed();
        each_vector(p, start, smaller(n, start + kGroup), 0, [&](F a, int64_t, int) {
            low = minimum(a, low);
            high = maximum(a, high);
            bad |= unordered(a, a);
            s = add_fixed(s, to_fixed(mul(a, b)));
        });
        const uint64_t sum = sum_fixed(s);
        group_mass[start / kGroup] = sum;
        total += sum;
    }
    float lows[kLanes], highs[kLanes];
    store(lows, low);
    store(highs, high);
    *min = *max = 0;
    for (int l = 0; l < kLanes; ++l) {
        *min = lows[l] < *min ? lows[l] : *min;
        *max = highs[l] > *max ? highs[l] : *max;
    }
    *nan = bad != 0;
    return total;
}

void prob_weights(const float* p, int64_t n, float by, uint64_t* w) {
    const F b = splat(by);
    for (int64_t i = 0; i < n; i += kLanes) {
        uint64_t v[kLanes];
        store_fixed(v, to_fixed(mul(i + kLanes <= n ? load(p + i) : load_part(p + i, n - i, 0), b)));
        std::memcpy(w + i, v, static_cast<size_t>(smaller(kLanes, n - i)) * sizeof v[0]);
    }
}

// ---- penalties ----------------------------------------------------------------------------------
struct Penalty {
    F repetition, frequency, presence;
    Penalty(float r, float f, float p) : repetition(splat(r)), frequency(splat(f)), presence(splat(p)) {}
    F repeated(F x) const { return select(gt(x, splat(0)), divide(x, repetition), mul(x, repetition)); }
    F operator()(F x, F count) const {
        const F r = repeated(x);
        return select(gt(count, splat(0)), sub(r, add(mul(frequency, count), presence)), r);
    }
};

// f(vector, position) over scattered elements of x, through `scratch`.
template <class Fn>
inline void map_scattered(float* x, const int32_t* ids, int64_t n, float* scratch, const Fn& f) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(scratch + i, f(gather(x, ids + i), ids + i, i));
    if (i < n) {
        int32_t some[kLanes] = {};
        std::memcpy(some, ids + i, static_cast<size_t>(n - i) * sizeof some[0]);
        store(scratch + i, f(gather(x, some), some, i));
    }
    for (i = 0; i + 4 <= n; i += 4) {
        x[ids[i]] = scratch[i];
        x[ids[i + 1]] = scratch[i + 1];
        x[ids[i + 2]] = scratch[i + 2];
        x[ids[i + 3]] = scratch[i + 3];
    }
    for (; i < n; ++i) x[ids[i]] = scratch[i];
}

void penalize(float* x, const int32_t* ids, int64_t n, const int32_t* counts, bool dense, float repetition,
              float frequency, float presence, float* scratch) {
    const Penalty p(repetition, frequency, presence);
    if (!counts) {
        map_scattered(x, ids, n, scratch, [&](F a, const int32_t*, int64_t) { return p.repeated(a); });
    } else if (dense) {
        map_scattered(x, ids, n, scratch,
                      [&](F a, const int32_t* some, int64_t) { return p(a, gather_int(counts, some)); });
    } else {
        map_scattered(x, ids, n, scratch, [&](F a, const int32_t*, int64_t at) {
            return p(a, at + kLanes <= n ? load_int(counts + at) : load_int_part(counts + at, n - at));
        });
    }
}

void penalize_dense(float* x, int64_t n, const int32_t* counts, float repetition, float frequency, float presence) {
    const Penalty p(repetition, frequency, presence);
    each_vector(x, 0, n, 0, [&](F a, int64_t at, int lanes) {
        const F count = lanes == kLanes ? load_int(counts + at) : load_int_part(counts + at, lanes);
        const uint32_t seen = gt(count, splat(0));
        if (!seen) return;
        const F y = select(seen, p(a, count), a);
        if (lanes == kLanes) {
            store(x + at, y);
        } else {
            store_part(x + at, lanes, y);
        }
    });
}

bool ids_below(const int32_t* ids, int64_t n, int64_t limit) {
    uint32_t worst = 0;
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t id = static_cast<uint32_t>(ids[i]);
        worst = id > worst ? id : worst;
    }
    return worst < limit;
}

// ---- 16-bit formats -----------------------------------------------------------------------------
void from_half(const uint16_t* src, int64_t n, float* dst) {
    int64_t i = 0;
#ifdef __F16C__
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i))));
    }
#endif
    for (; i < n; ++i) dst[i] = f16_to_f32(src[i]);
}

void to_half(const float* src, int64_t n, uint16_t* dst) {
    int64_t i = 0;
#ifdef __F16C__
    for (; i + 8 <= n; i += 8) {
        const __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i), h);
    }
#endif
    for (; i < n; ++i) dst[i] = f32_to_f16(src[i]);
}

void from_bfloat(const uint16_t* src, int64_t n, float* dst) {
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t bits = static_cast<uint32_t>(src[i]) << 16;
        std::memcpy(dst + i, &bits, 4);
    }
}

void to_bfloat(const float* src, int64_t n, uint16_t* dst) {
    for (int64_t i = 0; i < n; ++i) {
        uint32_t u;
        std::memcpy(&u, src + i, 4);
        const uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16, quiet = u >> 16 | 0x40;
        dst[i] = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
    }
}

constexpr SamplingKernels table(const char* name) {
    return {name,       scan_max,  find_equal, count_above, collect,   mass,      mass_collect, weights,
            histogram,  pick_bins,
            exact_mass, exact_weight, exp_store, scale,     divide,    subtract,  mask,         mask_bits,
            prob_mass,  prob_weights, penalize,  penalize_dense, ids_below, from_half, to_half, from_bfloat, to_bfloat};
}

}  // namespace
}  // namespace rvllm
