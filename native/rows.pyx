# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Sampling from one row of logits, without the GIL. See rows.pxd for the order of tokens and for Cut.

No row is ever sorted. Bounds that certainly (from the maxima of 64 elements each) or probably (from
a sample) hold the tokens that stay select a few candidates in one pass; a histogram over their
values narrows the border down to a few, and only those are sorted.

Top-p compares sums of weights with p times their total. Weights carry a known error, and their total may be
rough at first; when the border lies within these, the sums are taken again, at last from float64. So what stays
is what float64 arithmetic keeps.
"""
from libc.math cimport INFINITY, log, log2
from libc.string cimport memcpy, memset


cdef extern from "simd/order.h" namespace "rvllm" nogil:
    uint64_t sort_key(float value, uint32_t position)
    float key_value(uint64_t key)
    void sort_keys(uint64_t* keys, int64_t n)
    uint64_t nth_key(uint64_t* keys, int64_t n, int64_t k)


cdef extern from "<cfloat>" nogil:
    const float FLT_MAX

cdef enum:
    n_bins = 512  # kBins
    n_samples = 1024

cdef double ln2 = 0.69314718055994530942


# A row on its way from logits to what stays of it.
cdef struct Select:
    const float* x
    int64_t n
    float top          # largest value
    float lo           # smallest value that may stay (min-p)
    ExpParams e
    float bottom       # no candidate is below it
    int64_t n_cand     # candidates in s.val, s.idx: all that stay are among them; -1: not collected
    Cut cut


# ---- the border between what stays and what goes -------------------------------------------------

cdef inline int64_t position(uint64_t key) noexcept nogil:
    return <int64_t>(<uint32_t>key)


cdef inline uint64_t weight_at(const uint64_t* w, int64_t i) noexcept nogil:
    return w[i] if w != NULL else <uint64_t>1


cdef inline int64_t bin_of(float value, float top, float scale) noexcept nogil:
    cdef float b = (top - value) * scale
    return <int64_t>b if b < n_bins - 1 else n_bins - 1


# Bins of a histogram around a border: the running mass reaches `low` in the first, `high` in the last.
cdef struct Border:
    double low
    double high
    uint64_t above  # mass before the first bin
    int64_t first
    int64_t last


cdef void find_border(const uint64_t* hist, Border* b) noexcept nogil:
    cdef uint64_t sum = b.above
    cdef int64_t i
    b.first = b.last = n_bins - 1  # where only rounding keeps the total from reaching the border
    for i in range(n_bins):
        if <double>(sum + hist[i]) >= b.low:
            b.first = i
            b.above = sum
            break
        if i < n_bins - 1:
            sum += hist[i]
            b.above = sum
    for i in range(b.first, n_bins):
        sum += hist[i]
        if <double>sum >= b.high:
            b.last = i
            break


cdef int64_t narrow(const float* val, const uint64_t* w, int64_t n, float top, float bottom, uint64_t* keys,
                    Border* border) noexcept nogil:
    """Packs the elements around the border into `keys`, and sorts them. `w` null: each weighs 1."""
    cdef uint64_t hist[n_bins]
    cdef int64_t i, b, k
    cdef float value, scale
    border.above = 0
    if n > kFew and bottom == -FLT_MAX:
        bottom = top
        for i in range(n):
            if val[i] < bottom:
                bottom = val[i]
    scale = n_bins / (top - bottom)
    if n > kFew and 0 < scale <= FLT_MAX:
        memset(hist, 0, sizeof(hist))
        K.histogram(val, w, n, top, scale, hist)
        find_border(hist, border)
        n = K.pick_bins(val, n, top, scale, border.first, border.last, keys)
    else:
        for i in range(n):
            keys[i] = sort_key(val[i], <uint32_t>i)
    while n > kFew:
        top = bottom = key_value(keys[0])
        for i in range(1, n):
            value = key_value(keys[i])
            if value > top:
                top = value
            if value < bottom:
                bottom = value
        if top == bottom:
            return n  # ties: in order of position already
        scale = n_bins / (top - bottom)
        if not 0 < scale <= FLT_MAX:
            break
        memset(hist, 0, sizeof(hist))
        for i in range(n):
            hist[bin_of(key_value(keys[i]), top, scale)] += weight_at(w, position(keys[i]))
        find_border(hist, border)
        k = 0
        for i in range(n):
            b = bin_of(key_value(keys[i]), top, scale)
            if border.first <= b <= border.last:
                keys[k] = keys[i]
                k += 1
        if k == n:
            break
        n = k
    sort_candidates(keys, n)
    return n


cdef void sort_candidates(uint64_t* keys, int64_t n) noexcept nogil:
    """Sorts keys that are in order of their positions."""
    if n <= kFew:
        K.sort_few(keys, n)
    else:
        sort_keys(keys, n)


cdef void cut_at(Select* c, uint64_t key, Scratch* s) noexcept nogil:
    """Cuts after a candidate, and hides those behind the cut from the draw."""
    c.cut.value = c.bottom = key_value(key)
    c.cut.last = s.idx[position(key)]
    K.mask(s.val, c.n_cand, c.cut.value, position(key))


cdef int64_t cut_by_count(Select* c, int64_t k, Scratch* s) noexcept nogil:
    """Keeps the first k candidates. Returns how many of those `s.keys` begins with, sorted: all or none."""
    cdef Border border
    cdef int64_t m
    if c.n_cand < k:
        k = c.n_cand
        if k > kFew:
            return 0
    border.low = border.high = <double>k
    m = narrow(s.val, NULL, c.n_cand, c.top, c.bottom, s.keys, &border)
    cut_at(c, s.keys[k - 1 - <int64_t>border.above], s)
    return k if m == c.n_cand else 0


cdef void drop_hidden(Select* c, Scratch* s) noexcept nogil:
    cdef int64_t i, n = 0
    for i in range(c.n_cand):
        s.val[n] = s.val[i]
        s.idx[n] = s.idx[i]
        n += s.val[i] > -INFINITY
    c.n_cand = n


cdef void border_at(const Select* c, double p, double total, double total_error, Border* border) noexcept nogil:
    """Between which sums of weights p of the total lies, `total_error` of which is uncertain.

    A sum reaches it where (1 - p) * above == p * below; weights off by `slack` move that difference by no more
    than 2 * slack * p * (1 - p) of the total, and each of at most c.n is rounded.
    """
    cdef double target = p * total
    cdef double error = (2 * c.e.slack * (1 - p) + total_error) * target + c.n + 1
    border.low = target - error
    border.high = target + error


cdef bint is_certain(int64_t m, const Border* border, Scratch* s) noexcept nogil:
    """Does one of the first m of s.keys, sorted, reach both ends of the border?"""
    cdef uint64_t sum = border.above
    cdef int64_t i
    for i in range(m):
        sum += s.w[position(s.keys[i])]
        if <double>sum >= border.low:
            return <double>sum >= border.high
    return False


cdef void cut_by_mass(Select* c, const float* all_x, int64_t n_all, double p, int64_t m, const Border* border,
                      Scratch* s) noexcept nogil:
    """Keeps the shortest prefix whose mass reaches p of the total; border.low and .high enclose p * total.

    `m`: keys from border.above on, sorted. `all_x`: the elements that make up the total (those >= c.lo), for
    the sums in float64.
    """
    cdef double low = border.low, high = border.high
    cdef uint64_t sum = border.above
    cdef int64_t i, at_low = -1, at = -1
    cdef ExactSum exact_total, exact_sum
    cdef double exact_target
    for i in range(m):
        sum += s.w[position(s.keys[i])]
        if at_low < 0 and <double>sum >= low:
            at_low = i
        if <double>sum >= high:
            at = i
            break
    if at < 0:
        at = m - 1
    if at != at_low:  # the border is nearer than the weights are exact
        K.exact_mass(all_x, n_all, &c.e, c.lo, key_value(s.keys[0]), &exact_total, &exact_sum)
        exact_target = p * exact_total.value()
        for i in range(m):
            exact_sum.add(K.exact_weight(s.val[position(s.keys[i])], &c.e))
            if exact_sum.value() >= exact_target:
                at = i
                break
    cut_at(c, s.keys[at], s)


# ---- candidates ----------------------------------------------------------------------------------

cdef float kth_bound(const float* x, int64_t n, int64_t k, Scratch* s) noexcept nogil:
    """A value that at least k elements reach (certainly or most likely), and not many more."""
    cdef int64_t m = n_groups(n) * kLanes, j, stride
    cdef double rank
    if 5 * k <= 2 * m:  # the k-th largest of the blocks' maxima: k different elements reach it
        memcpy(s.order, s.block_max, m * sizeof(float))
        return K.kth_bound(s.order, m, k)
    if n <= 4 * n_samples:
        return -FLT_MAX
    stride = n // (n_samples // kLanes) // kLanes * kLanes
    for j in range(n_samples // kLanes):
        memcpy(s.val + j * kLanes, x + j * stride, kLanes * sizeof(float))
    rank = n_samples * (<double>k / n) + 97  # three standard deviations
    return K.kth_bound(s.val, n_samples, <int64_t>rank) if rank < n_samples else -FLT_MAX


cdef void collect_largest(Select* c, int64_t k, Scratch* s) noexcept nogil:
    """Collects candidates that hold the k largest elements (all from c.lo on, if fewer)."""
    cdef float bound = kth_bound(c.x, c.n, k, s)
    c.bottom = bound
    if bound > c.lo:
        c.n_cand = K.collect(c.x, c.n, bound, s.block_max, s.val, s.idx)
        if c.n_cand >= k:
            return
    c.bottom = c.lo
    c.n_cand = K.collect(c.x, c.n, c.lo, s.block_max, s.val, s.idx)


cdef void keep_top_p(Select* c, double p, Scratch* s) noexcept nogil:
    """Collects and weighs candidates of the whole row, and cuts them at mass p."""
    cdef float guess = c.lo, certain = c.lo, bound, last, octaves = 1
    cdef double total, total_error = 0
    cdef int64_t m
    cdef Border border
    if p < 0.99:  # else the error is much of what goes, and too many tokens lie within it
        total = <double><int64_t>K.rough_mass(c.x, c.n, &c.e, c.lo, s.block_max, s.next)
        total_error = kRoughMass
    else:
        total = <double><int64_t>K.mass(c.x, c.n, &c.e, c.lo, s.block_max, s.group_mass)
    border_at(c, p, total, total_error, &border)
    if c.n > 4 * n_samples:
        guess = K.mass_bound(c.x, c.n, &c.e, c.lo, s.block_max, total, border.high, s.order, &certain)
    while True:
        c.n_cand = K.collect(c.x, c.n, guess, s.block_max, s.val, s.idx)
        if <double>K.weights(s.val, c.n_cand, &c.e, s.w) >= border.high or guess == c.lo:
            break
        # Some octaves of weight further down. All below `bound` together weigh less than 1 - p of the total.
        bound = c.lo
        if total > border.high:
            bound = <float>(c.e.base + (log2((total - border.high) / c.n) - kFixedBits + c.e.m - 0.01) / c.e.c)
            bound -= <float>1e-5 * abs(bound)
        last = guess
        if c.lo < certain < guess:
            guess = certain
        else:
            guess = max(bound, guess - <float>(octaves / c.e.c))
            octaves *= 2
        if octaves > 64 or guess < c.lo or guess >= last:  # no weight is lower by 64 octaves
            guess = c.lo
    c.bottom = guess
    m = narrow(s.val, s.w, c.n_cand, c.top, c.bottom, s.keys, &border)
    if total_error > 0 and not is_certain(m, &border, s):
        total = <double><int64_t>K.mass(c.x, c.n, &c.e, c.lo, s.block_max, s.group_mass)
        border_at(c, p, total, 0, &border)
    cut_by_mass(c, c.x, c.n, p, m, &border, s)


cdef int64_t select(const float* x, int64_t n, const RowParams* p, Scratch* s, Select* c) noexcept nogil:
    """Applies min-p, top-k and top-p. -1: a NaN, or nothing but -inf."""
    cdef int64_t i, n_sorted
    cdef uint64_t total
    cdef Border border
    if K.scan_max(x, n, s.block_max, &c.top) or c.top == -INFINITY:
        return -1
    if c.top == INFINITY:  # infinities share the row equally: zeros among -inf do the same
        for i in range(n):
            s.row[i] = 0 if x[i] == INFINITY else -INFINITY
        x = s.row
        K.scan_max(x, n, s.block_max, &c.top)
    c.x = x
    c.n = n
    c.e = exp_params(c.top, p.temperature)
    c.lo = -FLT_MAX
    if p.min_p > 0:
        c.lo = min_p_bound(c.top, p)
    c.cut.value = c.lo
    c.cut.last = n
    c.n_cand = -1
    if 0 < p.top_k < n:
        collect_largest(c, p.top_k, s)
        n_sorted = cut_by_count(c, p.top_k, s)
        if p.top_p < 1:
            if n_sorted == 0:
                drop_hidden(c, s)
            total = K.weights(s.val, c.n_cand, &c.e, s.w)
            border_at(c, p.top_p, <double>total, 0, &border)
            border.above = 0
            if n_sorted == 0:
                n_sorted = narrow(s.val, s.w, c.n_cand, c.top, c.bottom, s.keys, &border)
            cut_by_mass(c, s.val, c.n_cand, p.top_p, n_sorted, &border, s)
    elif p.top_p < 1:
        keep_top_p(c, p.top_p, s)
    return 0


cdef float min_p_bound(float top, const RowParams* p) noexcept nogil:
    """Smallest float whose probability is at least min_p of the largest."""
    cdef double bound = top + p.temperature * log(p.min_p)
    cdef float lo = <float>max(bound, -<double>FLT_MAX)
    if lo < bound:
        lo = nextafterf(lo, INFINITY)
    return lo


cdef extern from "<cmath>" nogil:
    float nextafterf(float x, float to)


# ---- draws ---------------------------------------------------------------------------------------

cdef int64_t walk(const uint64_t* w, int64_t n, uint64_t at) noexcept nogil:
    """First position where the running sum exceeds `at`."""
    cdef uint64_t sum = 0, part
    cdef int64_t i = 0
    while i + 8 <= n:  # eight at once do not wait for each other
        part = ((w[i] + w[i + 1]) + (w[i + 2] + w[i + 3])) + ((w[i + 4] + w[i + 5]) + (w[i + 6] + w[i + 7]))
        if sum + part > at:
            break
        sum += part
        i += 8
    while i < n:
        sum += w[i]
        if sum > at:
            return i
        i += 1
    return n - 1


cdef int64_t group_of(const uint64_t* group_mass, int64_t groups, uint64_t* at) noexcept nogil:
    """Group that holds mass number `at`, which becomes relative to it."""
    cdef int64_t g
    for g in range(groups - 1):
        if at[0] < group_mass[g]:
            return g
        at[0] -= group_mass[g]
    return groups - 1


cdef int64_t draw(const float* x, int64_t n, const ExpParams* e, float lo, const float* block_max, uint64_t bits,
                  Scratch* s) noexcept nogil:
    """Draws among the elements from lo on."""
    cdef uint64_t at = scale_bits(bits, K.mass(x, n, e, lo, block_max, s.group_mass))
    cdef int64_t start = group_of(s.group_mass, n_groups(n), &at) * kGroup, i
    cdef int64_t size = min(kGroup, n - start)
    K.weights(x + start, size, e, s.w)
    if lo > -FLT_MAX:  # else what is hidden is -inf, and weighs nothing
        for i in range(size):
            if x[start + i] < lo:
                s.w[i] = 0
    return start + walk(s.w, size, at)


cdef int64_t argmax_row(const float* x, int64_t n, Scratch* s) noexcept nogil:
    return K.argmax(x, n, s.block_max)


cdef int64_t sample_row(const float* x, int64_t n, const RowParams* p, uint64_t bits, Scratch* s) noexcept nogil:
    cdef Select c
    if p.temperature < kGreedyBelow or p.top_k == 1:
        return argmax_row(x, n, s)
    if select(x, n, p, s, &c) < 0:
        return -1
    if c.n_cand < 0:
        return draw(c.x, n, &c.e, c.lo, s.block_max, bits, s)
    return s.idx[draw(s.val, c.n_cand, &c.e, -FLT_MAX, NULL, bits, s)]


cdef int64_t cut_row(const float* x, int64_t n, const RowParams* p, Scratch* s, Cut* cut) noexcept nogil:
    cdef Select c
    if select(x, n, p, s, &c) < 0:
        return -1
    cut[0] = c.cut
    if c.x != x:  # zeros stood for +inf
        cut.value = INFINITY
    return 0


cdef int64_t multinomial_row(const float* p, int64_t n, uint64_t bits, Scratch* s) noexcept nogil:
    cdef float most, scale = <float>(<int64_t>1 << kFixedBits)
    cdef uint64_t at, total = K.prob_mass(p, n, scale, s.group_mass, &most)
    cdef int64_t start
    if not most > 0:
        return -1
    if most > 1 or most < 1.0 / 1024:  # not probabilities: scale by the power of two that the largest wants
        scale = power_of_two_over(most)
        if scale == 0:
            return -1
        total = K.prob_mass(p, n, scale, s.group_mass, &most)
    at = scale_bits(bits, total)
    start = group_of(s.group_mass, n_groups(n), &at) * kGroup
    K.prob_weights(p + start, min(kGroup, n - start), scale, s.w)
    return start + walk(s.w, min(kGroup, n - start), at)


cdef extern from "<cmath>" nogil:
    int ilogbf(float x)
    float ldexpf(float x, int exponent)


cdef float power_of_two_over(float most) noexcept nogil:
    """Scale that brings `most` into [2^39, 2^40)."""
    return ldexpf(1, min(127, kFixedBits - 1 - ilogbf(most)))


# ---- log-probabilities ---------------------------------------------------------------------------

cdef int64_t stats_row(const float* x, int64_t n, Scratch* s, RowStats* stats) noexcept nogil:
    cdef ExpParams e
    cdef uint64_t total
    cdef int64_t i, ties = 0
    if K.scan_max(x, n, s.block_max, &stats.max) or stats.max == -INFINITY:
        return -1
    stats.log_ties = 0
    if stats.max == INFINITY:
        for i in range(n):
            ties += x[i] == INFINITY
        stats.log_sum = INFINITY
        stats.log_ties = log(<double>ties)
        return 0
    e = exp_params(stats.max, 1)
    total = K.mass(x, n, &e, -FLT_MAX, s.block_max, s.group_mass)
    stats.log_sum = e.base + (log2(<double>total) - kFixedBits + e.m) * ln2
    # Weights are rounded: where one token has nearly all of the mass, they may sum to a little less than its own.
    stats.log_sum = max(stats.log_sum, <double>stats.max)
    return 0


cdef double log_prob(float x, const RowStats* stats) noexcept nogil:
    if stats.max == INFINITY:
        return -stats.log_ties if x == INFINITY else -INFINITY
    return x - stats.log_sum


cdef int64_t top_row(const float* x, int64_t n, int64_t want, Scratch* s) noexcept nogil:
    cdef Select c
    cdef int64_t i
    want = min(want, n)
    if want <= 0:
        return 0
    c.x = x
    c.n = n
    c.lo = -INFINITY
    collect_largest(&c, want, s)
    for i in range(c.n_cand):
        s.keys[i] = sort_key(s.val[i], <uint32_t>i)
    if c.n_cand <= kFew:
        K.sort_few(s.keys, c.n_cand)
    else:
        if c.n_cand > want:
            nth_key(s.keys, c.n_cand, want - 1)
        sort_keys(s.keys, min(want, c.n_cand))
    return min(want, c.n_cand)
