// Looking for elements of a row: maxima, positions, candidates, histograms over values.
#pragma once
#include "order.h"
#include "vectors.inl"

namespace rvllm {
namespace {

bool scan_max(const float* x, int64_t n, float* lane_max, float* max) {
    F best = splat(kLowest);
    uint32_t nan = 0;
    for (int64_t start = 0; start < n; start += kGroup) {
        const int64_t end = smaller(n, start + kGroup);
        F m0 = splat(kLowest), m1 = m0, m2 = m0, m3 = m0;
        int64_t i = start;
        for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
            const F a = load(x + i), b = load(x + i + kLanes), c = load(x + i + 2 * kLanes),
                    d = load(x + i + 3 * kLanes);
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

// collect() from `begin` to `end`.
inline int64_t collect_group(const float* x, int64_t begin, int64_t end, float lo, float* val, int32_t* idx) {
    const F v = splat(lo);
    int64_t i = begin, k = 0;
    for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
        const F a = load(x + i), b = load(x + i + kLanes), c = load(x + i + 2 * kLanes),
                d = load(x + i + 3 * kLanes);
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
    return k;
}

int64_t collect(const float* x, int64_t n, float lo, const float* lane_max, float* val, int32_t* idx) {
    int64_t k = 0;
    for (int64_t start = 0; start < n; start += kGroup) {
        if (!group_reaches(lane_max, start, lo)) continue;
        k += collect_group(x, start, smaller(n, start + kGroup), lo, val + k, idx + k);
    }
    return k;
}

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

}  // namespace
}  // namespace rvllm
