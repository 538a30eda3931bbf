// The functions of rows.h for the instruction set of the including file.
#pragma once
#include "rows.h"
#include "vec.h"

namespace rvllm {
namespace {

// y[i] = f(a[i], b[i]) with the same arithmetic in the last, partial vector.
template <class F>
inline void map2(const float* a, const float* b, float* y, int64_t n, const F& f) {
    int64_t i = 0;
    for (; i + W <= n; i += W) store(y + i, f(load(a + i), load(b + i)));
    if (i < n) {
        const int rest = static_cast<int>(n - i);
        store_n(y + i, f(load_n(a + i, rest), load_n(b + i, rest)), rest);
    }
}

void add_row(const float* a, const float* b, float* y, int64_t n) {
    map2(a, b, y, n, [](V p, V q) { return add(p, q); });
}

void mul_row(const float* a, const float* b, float* y, int64_t n) {
    map2(a, b, y, n, [](V p, V q) { return mul(p, q); });
}

inline V silu(V x) {
    return div(x, add(set1(1), exp(sub(zero(), x))));
}

void silu_row(const float* x, float* y, int64_t n) {
    map2(x, x, y, n, [](V p, V) { return silu(p); });
}

void silu_mul_row(const float* gate, const float* up, float* y, int64_t n) {
    map2(gate, up, y, n, [](V p, V q) { return mul(silu(p), q); });
}

void rms_norm_row(const float* x, const float* w, float* y, int64_t n, float eps) {
    V s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
    int64_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W) {
        const V a = load(x + i), b = load(x + i + W), c = load(x + i + 2 * W), d = load(x + i + 3 * W);
        s0 = fma(a, a, s0);
        s1 = fma(b, b, s1);
        s2 = fma(c, c, s2);
        s3 = fma(d, d, s3);
    }
    for (; i < n; i += W) {
        const V a = load_n(x + i, least(W, n - i));
        s0 = fma(a, a, s0);
    }
    const float sum = reduce_add(add(add(s0, s1), add(s2, s3)));
    const V inverse = set1(1.0f / __builtin_sqrtf(sum / static_cast<float>(n) + eps));
    map2(x, w, y, n, [inverse](V p, V q) { return mul(q, mul(p, inverse)); });
}

void rope_row(const float* x, const float* table, float* y, int64_t half) {
    for (int64_t i = 0; i < half; i += W) {
        const int n = least(W, half - i);
        const V a = load_n(x + i, n), b = load_n(x + half + i, n);
        const V c = load_n(table + i, n), s = load_n(table + half + i, n);
        store_n(y + i, sub(mul(a, c), mul(b, s)), n);
        store_n(y + half + i, add(mul(b, c), mul(a, s)), n);
    }
}

template <class T>
void narrow_row(const float* x, uint16_t* y, int64_t n) {
    T* out = reinterpret_cast<T*>(y);
    for (int64_t i = 0; i < n; i += W) {
        const int lanes = least(W, n - i);
        store_n(out + i, load_n(x + i, lanes), lanes);
    }
}

constexpr RowKernels kRows = {rms_norm_row, add_row,  mul_row,         silu_row,
                              silu_mul_row, rope_row, narrow_row<F16>, narrow_row<Bf16>};

}  // namespace
}  // namespace rvllm
