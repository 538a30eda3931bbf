// The exponential of sampling: float32 for weights, float64 where a border lies within their error.
#pragma once
#include "vectors.inl"

namespace rvllm {
namespace {

// 2^(n + f), |f| <= 0.5: minimax polynomial of degree 6 with p(0) = 1, relative error 2^-28.
class Exp {
public:
    explicit Exp(const ExpParams& e)
        : base_(splat(e.base)),
          d_min_(splat(e.d_min)),
          hi_(splat(e.c_hi)),
          lo_(splat(e.c_lo)),
          magic_(splat(e.magic)) {}

    // y = exp(x) for n vectors side by side: one alone is a long chain of operations that wait for each
    // other.
    template <int n>
    void operator()(const F (&x)[n], F (&y)[n]) const {
        F d[n], shifted[n], f[n];
        for (int i = 0; i < n; ++i) d[i] = maximum(sub(x[i], base_), d_min_);
        for (int i = 0; i < n; ++i) shifted[i] = fma(d[i], hi_, magic_);
        for (int i = 0; i < n; ++i) f[i] = fma(d[i], hi_, sub(magic_, shifted[i]));
        for (int i = 0; i < n; ++i) f[i] = fma(d[i], lo_, f[i]);
        for (int i = 0; i < n; ++i) y[i] = fma(splat(0.000154626107578f), f[i], splat(0.00134017751254f));
        for (int i = 0; i < n; ++i) y[i] = fma(y[i], f[i], splat(0.00961805373433f));
        for (int i = 0; i < n; ++i) y[i] = fma(y[i], f[i], splat(0.0555032382582f));
        for (int i = 0; i < n; ++i) y[i] = fma(y[i], f[i], splat(0.240226509362f));
        for (int i = 0; i < n; ++i) y[i] = fma(y[i], f[i], splat(0.693147208313f));
        for (int i = 0; i < n; ++i) y[i] = fma(y[i], f[i], splat(1.0f));
        for (int i = 0; i < n; ++i) y[i] = scale_by(y[i], shifted[i]);
    }

private:
    F base_, d_min_, hi_, lo_, magic_;
};

// y[0..n) = exp(x[0..n)), or 0 where x < bound, if bounded. Fills y up to a whole vector; beyond the last
// element with next to nothing.
template <bool bounded>
inline void exp_group(const Exp& exp, const float* x, int64_t n, float bound, float* y) {
    const F least = splat(bound), zero = splat(0);
    int64_t i = 0;
    for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
        F a[kChains], w[kChains];
        for (int k = 0; k < kChains; ++k) a[k] = load(x + i + k * kLanes);
        exp(a, w);
        for (int k = 0; k < kChains; ++k) {
            store(y + i + k * kLanes, bounded ? select(ge(a[k], least), w[k], zero) : w[k]);
        }
    }
    each_vector(x, i, n, kLowest, [&](F a, int64_t at, int) {
        F x1[1] = {a}, w[1];
        exp(x1, w);
        store(y + at, bounded ? select(ge(a, least), w[0], zero) : w[0]);
    });
}

// y = 2^(d*c - m) in float64, degree 11, relative error 2^-55 before rounding; n at once, in loops that
// compilers make vectors of.
template <int n>
inline void exact_exp(const double (&d)[n], double d_min, double c, double m, double (&y)[n]) {
    constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
    double shifted[n];
    for (int i = 0; i < n; ++i) {
        const double x = d[i] > d_min ? d[i] : d_min;
        shifted[i] = __builtin_fma(x, c, magic - m);
        const double f = __builtin_fma(x, c, (magic - m) - shifted[i]);
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
        y[i] = __builtin_fma(p, f, 1.0);
    }
    uint64_t bits[n], k[n];
    std::memcpy(bits, y, sizeof bits);
    std::memcpy(k, shifted, sizeof k);
    for (int i = 0; i < n; ++i) bits[i] += k[i] << 52;
    std::memcpy(y, bits, sizeof bits);
}
inline double exact_exp(double d, double d_min, double c, double m) {
    double y[1];
    exact_exp<1>({d}, d_min, c, m, y);
    return y[0];
}

// A weight from it, in multiples of 2^-60; 1 at x*c == m.
inline uint64_t exact_weight_of(double y) {
    return static_cast<uint64_t>(static_cast<int64_t>(y * 1152921504606846976.0));  // 2^60
}

inline double exact_floor(const ExpParams* e) {
    return (e->m - 1000) / e->c;
}

uint64_t exact_weight(float x, const ExpParams* e) {
    return exact_weight_of(exact_exp(static_cast<double>(x) - e->base, exact_floor(e), e->c, e->m));
}

void exact_mass(const float* x, int64_t n, const ExpParams* e, float lo, float above, ExactSum* total,
                ExactSum* part) {
    constexpr int kPart = 32;
    const double base = e->base, d_min = exact_floor(e), c = e->c, m = e->m;
    uint64_t all_high[kPart] = {}, all_low[kPart] = {}, high[kPart] = {}, low[kPart] = {};
    for (int64_t i = 0; i < n; i += kPart) {
        float v[kPart];
        for (float& value : v) value = kLowest;
        std::memcpy(v, x + i, static_cast<size_t>(smaller(kPart, n - i)) * sizeof v[0]);
        double d[kPart], y[kPart];
        for (int l = 0; l < kPart; ++l) d[l] = v[l] - base;
        exact_exp(d, d_min, c, m, y);
        uint64_t w[kPart];
        for (int l = 0; l < kPart; ++l) w[l] = exact_weight_of(y[l]);
        for (int l = 0; l < kPart; ++l) {
            const bool counts = (v[l] >= lo) & (v[l] > kLowest);
            const uint64_t counted = counts ? w[l] : 0, counted_above = v[l] > above ? w[l] : 0;
            all_high[l] += counted >> 32;
            all_low[l] += counted & 0xffffffffu;
            high[l] += counted_above >> 32;
            low[l] += counted_above & 0xffffffffu;
        }
    }
    *total = *part = ExactSum();
    for (int l = 0; l < kPart; ++l) {
        total->high += all_high[l];
        total->low += all_low[l];
        part->high += high[l];
        part->low += low[l];
    }
}

}  // namespace
}  // namespace rvllm
