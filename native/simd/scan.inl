// Looking for elements of a row: maxima, positions, candidates, histograms over values.
#pragma once
#include "order.h"
#include "vectors.inl"

namespace rvllm {
namespace {

// Largest of each vector's worth of blocks from `x`, all of them whole.
inline F whole_group_max(const float* x, uint32_t* nan) {
    F m[kLanes];
    for (int i = 0; i < kLanes; ++i, x += kBlock) {
        const F a = load(x), b = load(x + kLanes), c = load(x + 2 * kLanes), d = load(x + 3 * kLanes);
        m[i] = maximum(maximum(a, b), maximum(c, d));
        *nan |= unordered(a, b) | unordered(c, d);
    }
    return largest_each(m);
}

bool scan_max(const float* x, int64_t n, float* block_max, float* max) {
    F best = splat(kLowest);
    uint32_t nan = 0;
    int64_t start = 0;
    for (; start + kGroup <= n; start += kGroup) {
        const F m = whole_group_max(x + start, &nan);
        store(block_max + start / kBlock, m);
        best = maximum(m, best);
    }
    if (start < n) {
        F m[kLanes];
        for (int i = 0; i < kLanes; ++i) {
            m[i] = splat(kLowest);
            const int64_t begin = start + i * kBlock, end = smaller(n, begin + kBlock);
            each_vector(x, begin, end, kLowest, [&](F v, int64_t, int) {
                m[i] = maximum(v, m[i]);
                nan |= unordered(v, v);
            });
        }
        const F each = largest_each(m);
        store(block_max + start / kBlock, each);
        best = maximum(each, best);
    }
    *max = largest(best);
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

int64_t argmax(const float* x, int64_t n, float* lane_max) {
    // Vectors from the first aligned one on: those that cross cache lines take two reads each.
    const int64_t head =
        smaller(n, static_cast<int64_t>(-reinterpret_cast<uintptr_t>(x) / sizeof *x % kLanes));
    F best = head > 0 ? load_part(x, head, kLowest) : splat(kLowest);
    uint32_t nan = unordered(best, best);
    const float head_max = largest(best);
    const float* const body = x + head;
    const int64_t n_body = n - head;
    for (int64_t start = 0; start < n_body; start += kGroup) {
        const int64_t end = smaller(n_body, start + kGroup);
        F m[4];
        for (F& v : m) v = splat(kLowest);
        int64_t i = start;
        for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
            F a[4];
            for (int k = 0; k < 4; ++k) a[k] = load(body + i + k * kLanes);
            for (int k = 0; k < 4; ++k) m[k] = maximum(a[k], m[k]);
            nan |= unordered(a[0], a[1]) | unordered(a[2], a[3]);
        }
        each_vector(body, i, end, kLowest, [&](F v, int64_t, int) {
            m[0] = maximum(v, m[0]);
            nan |= unordered(v, v);
        });
        m[0] = maximum(maximum(m[0], m[1]), maximum(m[2], m[3]));
        store(lane_max + start / kGroup * kLanes, m[0]);
        best = maximum(m[0], best);
    }
    const float top = largest(best);
    if (nan || top == kLowest) return -1;
    if (head > 0 && head_max == top) return find_equal(x, head, top);
    const int64_t start = find_equal(lane_max, n_groups(n_body) * kLanes, top) / kLanes * kGroup;
    return head + start + find_equal(body + start, smaller(kGroup, n_body - start), top);
}

int64_t count_above(const float* x, int64_t n, float value) {
    const F v = splat(value);
    int64_t count = 0;
    each_vector(x, 0, n, kLowest, [&](F a, int64_t, int) { count += __builtin_popcount(gt(a, v)); });
    return count;
}

// collect() from `begin` to `end`.
inline int64_t collect_part(const float* x, int64_t begin, int64_t end, float lo, float* val, int32_t* idx) {
    const F v = splat(lo);
    int64_t k = 0;
    each_vector(x, begin, end, kLowest, [&](F a, int64_t at, int lanes) {
        k += compress(val + k, idx + k, x + at, a, static_cast<int32_t>(at), ge(a, v) & lanes_below(lanes));
    });
    return k;
}

int64_t collect(const float* x, int64_t n, float lo, const float* block_max, float* val, int32_t* idx) {
    int64_t k = 0;
    for (int64_t start = 0; start < n; start += kGroup) {
        uint32_t m = blocks_reaching(block_max, start, lo);
        if (m == 0xffff) {  // one long loop is faster than many short ones
            k += collect_part(x, start, smaller(n, start + kGroup), lo, val + k, idx + k);
            continue;
        }
        for (; m; m &= m - 1) {
            const int64_t begin = start + __builtin_ctz(m) * kBlock;
            if (begin >= n) break;
            k += collect_part(x, begin, smaller(n, begin + kBlock), lo, val + k, idx + k);
        }
    }
    return k;
}

float kth_bound(float* v, int64_t n, int64_t k) {
    for (; n >= 6 * k && n % (2 * kLanes) == 0; n /= 2) {  // fewer, coarser maxima do
        for (int64_t i = 0; i < n / 2; i += kLanes) {
            store(v + i, maximum(load(v + i), load(v + n / 2 + i)));
        }
    }
    F high = load(v), low = high;
    for (int64_t i = kLanes; i < n; i += kLanes) {
        high = maximum(load(v + i), high);
        low = minimum(load(v + i), low);
    }
    // Bisects the order of floats: at least k reach `reached`, fewer `missed`.
    uint32_t reached = value_order(-largest(sub(splat(0), low))), missed = value_order(largest(high)) + 1;
    while (missed - reached > 1) {
        const uint32_t middle = reached + (missed - reached) / 2;
        const F bound = splat(ordered_value(middle));
        int64_t count = 0;
        for (int64_t i = 0; i < n; i += kLanes) count += __builtin_popcount(ge(load(v + i), bound));
        if (count < k) {
            missed = middle;
            continue;
        }
        reached = middle;
        if (count <= k + k / 8) break;
    }
    return ordered_value(reached);
}

void sort_few(uint64_t* keys, int64_t n) {
    uint64_t unsorted[kFew];
    float v[kFew + kLanes];
    for (int64_t i = 0; i < n; ++i) {
        unsorted[i] = keys[i];
        v[i] = key_value(keys[i]);
    }
    for (int64_t i = n; i < n + kLanes; ++i) v[i] = kLowest;
    for (int64_t i = 0; i < n; ++i) {
        const F a = splat(v[i]), own = load(v + i / kLanes * kLanes);
        int64_t j = 0;
        int before = __builtin_popcount(gt(own, a) | (eq(own, a) & lanes_below(i % kLanes)));
        for (; j + kLanes <= i; j += kLanes) before += __builtin_popcount(ge(load(v + j), a));
        for (j += kLanes; j < n; j += kLanes) before += __builtin_popcount(gt(load(v + j), a));
        keys[before] = unsorted[i];
    }
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
