// Penalties: values at scattered positions are gathered, changed and put back.
#pragma once
#include "vectors.inl"

namespace rvllm {
namespace {

struct Penalty {
    F repetition, frequency, presence;
    Penalty(float r, float f, float p) : repetition(splat(r)), frequency(splat(f)), presence(splat(p)) {}
    F repeated(F x) const { return select(gt(x, splat(0)), divide(x, repetition), mul(x, repetition)); }
    F operator()(F x, F count) const {
        const F r = repeated(x);
        return select(gt(count, splat(0)), sub(r, add(mul(frequency, count), presence)), r);
    }
};

// Two ids and two values with a load each: loads are the limit here (little-endian).
inline void scatter_2(float* x, const int32_t* ids, const float* values) {
    uint64_t at, bits;
    std::memcpy(&at, ids, sizeof at);
    std::memcpy(&bits, values, sizeof bits);
    const uint32_t first = static_cast<uint32_t>(bits), second = static_cast<uint32_t>(bits >> 32);
    std::memcpy(x + static_cast<uint32_t>(at), &first, sizeof first);
    std::memcpy(x + (at >> 32), &second, sizeof second);
}

inline void scatter(float* x, const int32_t* ids, int64_t n, const float* values) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        scatter_2(x, ids + i, values + i);
        scatter_2(x, ids + i + 2, values + i + 2);
        scatter_2(x, ids + i + 4, values + i + 4);
        scatter_2(x, ids + i + 6, values + i + 6);
    }
    for (; i < n; ++i) x[ids[i]] = values[i];
}

// f(ids of a vector, offset); a last, partial vector is filled up with id 0.
template <class Fn>
inline void each_ids(const int32_t* ids, int64_t n, const Fn& f) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) f(ids + i, i);
    if (i < n) {
        int32_t some[kLanes] = {};
        std::memcpy(some, ids + i, static_cast<size_t>(n - i) * sizeof some[0]);
        f(some, i);
    }
}

void penalize(float* x, const int32_t* ids, int64_t n, const int32_t* counts, bool dense, float repetition,
              float frequency, float presence, float* scratch) {
    const Penalty p(repetition, frequency, presence);
    if (!counts) {
        each_ids(ids, n,
                 [&](const int32_t* some, int64_t i) { store(scratch + i, p.repeated(gather(x, some))); });
    } else if (dense) {
        each_ids(ids, n, [&](const int32_t* some, int64_t i) {
            store(scratch + i, p(gather(x, some), gather_int(counts, some)));
        });
    } else {
        each_ids(ids, n, [&](const int32_t* some, int64_t i) {
            const F count = i + kLanes <= n ? load_int(counts + i) : load_int_part(counts + i, n - i);
            store(scratch + i, p(gather(x, some), count));
        });
    }
    scatter(x, ids, n, scratch);
}

void penalize_tally(float* x, const int32_t* ids, int64_t n, int32_t* tally, float repetition,
                    float frequency, float presence) {
    const Penalty p(repetition, frequency, presence);
    const F zero = splat(0);
    each_ids(ids, n, [&](const int32_t* some, int64_t begin) {
        const F a = gather(x, some), count = gather_int(tally, some);
        float y[kLanes];
        store(y, select(gt(count, zero) | gt(zero, count), p(a, count), a));
        const int64_t size = smaller(kLanes, n - begin);
        int64_t i = 0;
        for (; i + 2 <= size; i += 2) {
            scatter_2(x, some + i, y + i);
            tally[some[i]] = 0;
            tally[some[i + 1]] = 0;
        }
        if (i < size) {
            x[some[i]] = y[i];
            tally[some[i]] = 0;
        }
    });
}

void penalize_dense(float* x, int64_t n, const int32_t* counts, float repetition, float frequency,
                    float presence) {
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

}  // namespace
}  // namespace rvllm
