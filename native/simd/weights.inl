// Weights of a row in fixed point, their sums, and probabilities. They are computed a group at a time, into a
// buffer that stays in the first cache, and summed from there: loops that mix both are slower.
#pragma once
#include "edit.inl"
#include "exp.inl"
#include "scan.inl"

namespace rvllm {
namespace {

// Sum of whole vectors, rounded to fixed point.
inline uint64_t fixed_sum(const float* w, int64_t n) {
    Fixed s = zero_fixed(), other = s;
    int64_t i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
        s = add_fixed(s, to_fixed(load(w + i)));
        other = add_fixed(other, to_fixed(load(w + i + kLanes)));
    }
    for (; i < n; i += kLanes) s = add_fixed(s, to_fixed(load(w + i)));
    return sum_fixed(add_fixed(s, other));
}

// Elements below this one weigh nothing: their number rounds to 0.
inline float lowest_weighed(const ExpParams* e) {
    return e->base + e->d_min;
}

// The sum of the weights of elements >= lo of one group.
template <bool bounded>
inline uint64_t group_mass_of(const Exp& exp, const float* x, int64_t n, float lo) {
    float w[kGroup];
    exp_group<bounded>(exp, x, n, lo, w);
    return fixed_sum(w, n);
}

uint64_t mass(const float* x, int64_t n, const ExpParams* e, float lo, const float* block_max,
              uint64_t* group_mass) {
    const Exp exp(*e);
    const float floor = lowest_weighed(e);
    uint64_t total = 0;
    for (int64_t start = 0; start < n; start += kGroup) {
        uint64_t sum = 0;
        if (group_reaches(block_max, start, std::fmax(lo, floor))) {
            const int64_t size = smaller(kGroup, n - start);
            sum = lo > floor ? group_mass_of<true>(exp, x + start, size, lo)
                             : group_mass_of<false>(exp, x + start, size, lo);
        }
        group_mass[start / kGroup] = sum;
        total += sum;
    }
    return total;
}

// The weights of kChains vectors added up in float32 before they are rounded to fixed point.
template <bool bounded>
inline Fixed rough_group(const Exp& exp, const float* x, int64_t n, F least) {
    const F zero = splat(0);
    Fixed sum = zero_fixed();
    int64_t i = 0;
    for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
        F a[kChains], w[kChains];
        for (int k = 0; k < kChains; ++k) a[k] = load(x + i + k * kLanes);
        exp(a, w);
        if (bounded) {
            for (int k = 0; k < kChains; ++k) w[k] = select(ge(a[k], least), w[k], zero);
        }
        for (int half = kChains / 2; half > 0; half /= 2) {
            for (int k = 0; k < half; ++k) w[k] = add(w[k], w[k + half]);
        }
        sum = add_fixed(sum, to_fixed(w[0]));
    }
    each_vector(x, i, n, kLowest, [&](F a, int64_t, int) {
        F x1[1] = {a}, w[1];
        exp(x1, w);
        sum = add_fixed(sum, to_fixed(bounded ? select(ge(a, least), w[0], zero) : w[0]));
    });
    return sum;
}

uint64_t rough_mass(const float* x, int64_t n, const ExpParams* e, float lo, const float* block_max,
                    const float* next) {
    const Exp exp(*e);
    const float floor = lowest_weighed(e);
    const F least = splat(lo);
    Fixed total = zero_fixed();
    for (int64_t start = 0; start < n; start += kGroup) {
        const int64_t size = smaller(kGroup, n - start);
        if (next) {
            for (int64_t i = 0; i < size; i += kLanes) __builtin_prefetch(next + start + i, 0, 2);
        }
        if (!group_reaches(block_max, start, std::fmax(lo, floor))) continue;
        total = add_fixed(total, lo > floor ? rough_group<true>(exp, x + start, size, least)
                                            : rough_group<false>(exp, x + start, size, least));
    }
    return sum_fixed(total);
}

// The sum of those of n weights (whole vectors) that are less than `bound`, or at least.
template <bool at_least>
inline float sum_beside(const float* w, int64_t n, float bound) {
    const F b = splat(bound), zero = splat(0);
    F sum[4] = {zero, zero, zero, zero};
    const auto add_to = [&](F* to, const float* at) {
        const F a = load(at);
        *to = add(*to, select(at_least ? ge(a, b) : gt(b, a), a, zero));
    };
    int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        for (int k = 0; k < 4; ++k) add_to(&sum[k], w + i + k * kLanes);
    }
    for (; i < n; i += kLanes) add_to(&sum[0], w + i);
    float lanes[kLanes];
    store(lanes, add(add(sum[0], sum[1]), add(sum[2], sum[3])));
    for (int half = kLanes / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    }
    return lanes[0];
}

// The largest weight, to 1/8 octave, that meets a condition which all smaller ones meet; 0: none that counts
// does.
template <class Fn>
inline float bisect_weights(const Fn& meets) {
    const auto of_bits = [](uint32_t bits) {
        float w;
        std::memcpy(&w, &bits, sizeof w);
        return w;
    };
    constexpr uint32_t octave = 1u << 23, none = 126 * octave;  // 1/2: it may round to 0
    uint32_t met = none, beyond = (127 + kFixedBits + 1) * octave;
    while (beyond - met > octave / 8) {
        const uint32_t middle = met + (beyond - met) / 2;
        (meets(of_bits(middle)) ? met : beyond) = middle;
    }
    return met == none ? 0 : of_bits(met);
}

float mass_bound(const float* x, int64_t n, const ExpParams* e, float lo, const float* block_max, double all,
                 double enough, float* scratch, float* certain) {
    constexpr int64_t n_samples = 1024;
    const Exp exp(*e);
    const auto value = [&](float weight) {
        if (!(weight > 0)) return lo;
        const double octaves = std::log2(static_cast<double>(weight)) - kFixedBits + e->m;
        return std::fmax(lo, static_cast<float>(e->base + octaves / e->c));
    };
    const int64_t n_blocks = n_groups(n) * kLanes, stride = n / (n_samples / kLanes) / kLanes * kLanes;
    exp_group<true>(exp, block_max, n_blocks, lo, scratch);
    const float most = static_cast<float>(enough);
    *certain = lo;
    if (sum_beside<true>(scratch, n_blocks, 0) > most) {
        *certain =
            value(bisect_weights([&](float w) { return sum_beside<true>(scratch, n_blocks, w) > most; }));
    }

    float w[n_samples];
    for (int64_t i = 0; i < n_samples; i += kLanes) {
        exp_group<true>(exp, x + i / kLanes * stride, kLanes, lo, w + i);
    }
    const float rest = static_cast<float>(0.8 * (all - enough) * n_samples / static_cast<double>(n));
    return std::fmax(
        *certain, value(bisect_weights([&](float v) { return sum_beside<false>(w, n_samples, v) <= rest; })));
}

uint64_t weights(const float* x, int64_t n, const ExpParams* e, uint64_t* w) {
    const Exp exp(*e);
    float y[kGroup];
    Fixed total = zero_fixed();
    for (int64_t start = 0; start < n; start += kGroup) {
        const int64_t size = smaller(kGroup, n - start);
        exp_group<false>(exp, x + start, size, kLowest, y);
        for (int64_t i = 0; i < size; i += kLanes) {
            const Fixed v = to_fixed(load(y + i));
            store_fixed(w + start + i, v);
            total = add_fixed(total, v);
        }
    }
    return sum_fixed(total);
}

// ---- softmax ------------------------------------------------------------------------------------
// A probability of 2^-150 is still a number, so the floor is lower than for a draw.
inline ExpParams softmax_params(float max) {
    ExpParams e = exp_params(max, 1);
    e.d_min = static_cast<float>(std::fmax((e.m - 150) / e.c, -std::numeric_limits<float>::max()));
    return e;
}

// Largest element of a group; NaN if it holds one.
inline float group_max(const float* x, int64_t n) {
    F m[4];
    uint32_t nan = 0;
    for (F& v : m) v = splat(kLowest);
    int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        const F a = load(x + i), b = load(x + i + kLanes), c = load(x + i + 2 * kLanes),
                d = load(x + i + 3 * kLanes);
        m[0] = maximum(a, m[0]);
        m[1] = maximum(b, m[1]);
        m[2] = maximum(c, m[2]);
        m[3] = maximum(d, m[3]);
        nan |= unordered(a, b) | unordered(c, d);
    }
    each_vector(x, i, n, kLowest, [&](F a, int64_t, int) {
        m[0] = maximum(a, m[0]);
        nan |= unordered(a, a);
    });
    return nan ? std::numeric_limits<float>::quiet_NaN()
               : largest(maximum(maximum(m[0], m[1]), maximum(m[2], m[3])));
}

bool softmax(const float* x, int64_t n, float* y, float* tops, uint64_t* group_mass) {
    float top = kLowest;
    ExpParams e = softmax_params(0);
    for (int64_t start = 0; start < n; start += kGroup) {
        const int64_t size = smaller(kGroup, n - start);
        const float max = group_max(x + start, size);
        if (!(max < std::numeric_limits<float>::infinity())) return false;
        if (max > top) {
            if (top == kLowest) std::memset(y, 0, static_cast<size_t>(start) * sizeof *y);
            top = max;
            e = softmax_params(top);
        }
        tops[start / kGroup] = top;
        group_mass[start / kGroup] = 0;
        if (top == kLowest) continue;
        float w[kGroup];
        float* const out = size == kGroup ? y + start : w;
        exp_group<true>(Exp(e), x + start, size, e.d_min + e.base, out);
        group_mass[start / kGroup] = fixed_sum(out, size);
        if (out == w) std::memcpy(y + start, w, static_cast<size_t>(size) * sizeof *y);
    }
    if (top == kLowest) return false;

    // log2 of what a group's weights count in, relative to the last one's.
    const auto unit = [&e](float group_top) {
        const ExpParams g = softmax_params(group_top);
        return (static_cast<double>(g.base) - e.base) * e.c + (g.m - e.m);
    };
    double total = 0;
    for (int64_t g = 0; g < n_groups(n); ++g) {
        const double share = tops[g] == top       ? 1
                             : tops[g] == kLowest ? 0
                                                  : exact_exp(unit(tops[g]), -1000, 1, 0);
        total += share * static_cast<double>(group_mass[g]);
    }
    for (int64_t start = 0; start < n; start += kGroup) {
        float* const out = y + start;
        const int64_t size = smaller(kGroup, n - start);
        const float group_top = tops[start / kGroup];
        if (group_top == kLowest) continue;
        double shift = group_top == top ? 0 : std::fmax(unit(group_top), -200);
        for (; shift < -64; shift += 64)
            scale(out, size, 0x1p-64f);  // one factor would not be a normal number
        scale(out, size, static_cast<float>(exact_exp(shift, -1000, 1, 0) / total));
    }
    return true;
}

// ---- given probabilities ------------------------------------------------------------------------
// The largest of finite values >= 0; NaN if there are others.
inline float checked_max(const float* p, int64_t n) {
    const F zero = splat(0), infinity = splat(std::numeric_limits<float>::infinity());
    F high = zero;
    uint32_t bad = 0;
    each_vector(p, 0, n, 0, [&](F a, int64_t, int) {
        high = maximum(a, high);
        bad |= gt(zero, a) | unordered(a, a) | eq(a, infinity);
    });
    return bad ? std::numeric_limits<float>::quiet_NaN() : largest(high);
}

uint64_t prob_mass(const float* p, int64_t n, float by, uint64_t* group_mass, float* max) {
    const F b = splat(by);
    F high[4];  // by their bits: values >= 0 keep their order, and all others are larger
    for (F& v : high) v = splat(0);
    uint64_t total = 0;
    for (int64_t start = 0; start < n; start += kGroup) {
        Fixed s[4];
        for (Fixed& v : s) v = zero_fixed();
        const int64_t end = smaller(n, start + kGroup);
        int64_t i = start;
        for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
            for (int k = 0; k < 4; ++k) {
                const F a = load(p + i + k * kLanes);
                high[k] = max_bits(high[k], a);
                s[k] = add_fixed(s[k], to_fixed(mul(a, b)));
            }
        }
        each_vector(p, i, end, 0, [&](F a, int64_t, int) {
            high[0] = max_bits(high[0], a);
            s[0] = add_fixed(s[0], to_fixed(mul(a, b)));
        });
        const uint64_t sum = sum_fixed(add_fixed(add_fixed(s[0], s[1]), add_fixed(s[2], s[3])));
        group_mass[start / kGroup] = sum;
        total += sum;
    }
    for (int k = 1; k < 4; ++k) high[0] = max_bits(high[k], high[0]);
    float lanes[kLanes];
    store(lanes, high[0]);
    *max = 0;
    for (float v : lanes) {
        const bool plain = v <= std::numeric_limits<float>::max() && !std::signbit(v);
        *max = plain ? std::fmax(v, *max) : checked_max(p, n);
        if (!plain) break;
    }
    return total;
}

void prob_weights(const float* p, int64_t n, float by, uint64_t* w) {
    const F b = splat(by);
    each_vector(p, 0, n, 0, [&](F a, int64_t at, int) { store_fixed(w + at, to_fixed(mul(a, b))); });
}

}  // namespace
}  // namespace rvllm
