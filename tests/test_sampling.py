"""The sampling primitives against float64 references over generated rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sampling_reference as ref
from rvllm import sampling

SIZES = [1, 2, 3, 15, 16, 17, 63, 64, 65, 200, 1023, 1024, 1025, 4097, 5000, 9000]


def make_row(kind, n, seed, scale=3.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n) * scale
    if kind == "uniform":
        x = rng.uniform(-10, 10, n)
    elif kind == "peaked":
        x[rng.integers(0, n, min(n, 5))] += 15
    elif kind == "ties":
        x = np.round(x * 2) / 2
    elif kind == "equal":
        x[:] = scale
    elif kind == "masked":
        x[rng.random(n) < 0.95] = -np.inf
        x[rng.integers(n)] = 1.0
    elif kind == "wide":
        x *= 100
    elif kind == "shifted":
        x += 3e5
    elif kind == "lowered":
        x[rng.random(n) < 0.5] -= 1e9
    elif kind == "sorted":
        x = np.sort(x)[::-1]
    return x.astype(np.float32)


KINDS = ["normal", "uniform", "peaked", "ties", "equal", "masked", "wide", "shifted", "lowered", "sorted"]
rows = st.builds(
    make_row,
    st.sampled_from(KINDS),
    st.sampled_from(SIZES) | st.integers(1, 300),
    st.integers(0, 2**32),
    st.sampled_from([0.1, 1.0, 3.0, 8.0]),
)
seeds = st.integers(0, 2**64 - 1)
some = settings(max_examples=150, deadline=None)
MARGIN = 1e-11  # nearer to a border than this, float64 itself does not say who stays


def check_cut(logits, kept_count, masked, mask):
    assert kept_count == mask.sum()
    np.testing.assert_array_equal(masked, np.where(mask, logits, -np.inf))


@some
@given(rows, st.integers(1, 400) | st.sampled_from([0, -1, 2000, 100_000]))
def test_top_k_keeps_what_the_reference_keeps(logits, k):
    mask, _ = ref.kept(logits, top_k=k)
    got = logits.copy()
    n = sampling.apply_top_k(got, k)
    check_cut(logits, n, got, mask)


@some
@given(rows, st.floats(1e-6, 1.0) | st.sampled_from([0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 0.99999, 0.9999999]))
def test_top_p_keeps_what_the_reference_keeps(logits, p):
    mask, margin = ref.kept(logits, top_p=p)
    got = logits.copy()
    n = sampling.apply_top_p(got, p)
    if margin > MARGIN:
        check_cut(logits, n, got, mask)


@some
@given(rows, st.floats(0, 1.0) | st.sampled_from([0.01, 0.05, 0.1, 1.0]))
def test_min_p_keeps_what_the_reference_keeps(logits, p):
    mask, margin = ref.kept(logits, min_p=p)
    got = logits.copy()
    n = sampling.apply_min_p(got, p)
    if margin > MARGIN:
        check_cut(logits, n, got, mask)


@pytest.mark.parametrize("kind", ["normal", "uniform", "peaked", "ties", "equal", "masked", "sorted"])
@pytest.mark.parametrize("filters", [{"top_p": 0.9}, {"top_p": 0.999999}, {"top_k": 50}, {"top_k": 60_000}])
def test_large_vocabularies(kind, filters):
    logits = make_row(kind, 151_936, 7)
    mask, margin = ref.kept(logits, **filters)
    got = logits.copy()
    (name, value), = filters.items()  # fmt: skip
    n = getattr(sampling, f"apply_{name}")(got, value)
    if margin > MARGIN:
        check_cut(logits, n, got, mask)


@some
@given(rows, st.floats(2, 16))
def test_top_p_near_one_is_as_near_as_float64(logits, digits):
    """The sum of what stays reaches p, and without the last of it does not: up to what float64 can tell."""
    p = 1 - 10.0**-digits
    values = np.sort(logits.astype(np.longdouble))[::-1]
    weights = np.exp(values - values[0])
    sums = np.cumsum(weights) / weights.sum()
    n = sampling.apply_top_p(logits.copy(), p)
    assert sums[n - 1] >= p - 2e-14
    assert n == 1 or sums[n - 2] < p + 2e-14


@pytest.mark.parametrize("n", [1, 100, 129, 300, 1025, 9000, 40_000])
@pytest.mark.parametrize("p", [1 - 2**-53, 1 - 1e-12])
def test_top_p_of_nearly_all_keeps_all(n, p):
    """Every sum is within its error of the border."""
    for seed in range(4):
        assert sampling.apply_top_p(make_row("normal", n, seed, 0.1), p) == n


def test_top_p_is_decided_in_float64_when_the_border_is_near():
    """p just above and just below a running sum: nearer than float32 weights could tell."""
    for seed in range(12):
        logits = make_row("uniform", 20_000, seed)
        order = np.argsort(-logits.astype(np.float64), kind="stable")
        cdf = np.cumsum(ref.softmax(logits)[order])
        at = int(np.searchsorted(cdf, 0.9))
        for p, n in ((cdf[at] * (1 - 1e-10), at + 1), (cdf[at] * (1 + 1e-10), at + 2)):
            assert sampling.apply_top_p(logits.copy(), p) == n


@some
@given(
    rows, st.floats(0.05, 4.0), st.integers(0, 60), st.floats(0.01, 1.0), st.floats(0.0, 0.5), st.integers(0, 2**64 - 1)
)
def test_sample_batch_draws_as_the_reference(logits, temperature, top_k, top_p, min_p, seed):
    mask, margin = ref.kept(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    token, draw_margin = ref.draw(logits, mask, temperature, ref.random_bits(seed, 3, 9))
    got = sampling.sample_batch(
        logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed, choice=3, token_index=9
    )
    if margin > 1e-9:
        assert mask[got]
        assert got == token or draw_margin < 2e-6


def test_no_log_probability_is_above_zero():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (200, 500)).astype(np.float32)
    logits[np.arange(200), rng.integers(0, 500, 200)] += rng.uniform(10, 60, 200).astype(np.float32)
    assert sampling.log_softmax(logits).max() == 0
    assert sampling.top_logprobs(logits, 2)[1].max() == 0


@some
@given(rows)
def test_softmax_log_softmax_argmax_and_top_logprobs(logits):
    p = ref.softmax(logits)
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    np.testing.assert_allclose(sampling.softmax(logits), p, rtol=1e-6 if abs(logits.max()) < 1e4 else 1e-5, atol=1e-37)
    peak = logits.max()
    expected = (logits.astype(np.float64) - peak) - np.log(np.exp(logits.astype(np.float64) - peak).sum())
    np.testing.assert_allclose(sampling.log_softmax(logits), expected, rtol=3e-6, atol=3e-6)
    assert sampling.argmax(logits) == logits.argmax()
    n = min(20, len(logits))
    ids, log_probs = sampling.top_logprobs(logits, n)
    order = np.argsort(-logits, kind="stable")[:n]
    np.testing.assert_array_equal(ids, order)
    finite = log_p[order] > -80
    np.testing.assert_allclose(log_probs[finite], log_p[order][finite], rtol=1e-5, atol=1e-5)


def test_softmax_is_accurate_to_the_last_bits():
    """The certified error of a weight rests on this: the polynomial is good to 1.3e-7 everywhere."""
    x = np.concatenate([np.linspace(-20, 0, 100_001), np.linspace(-0.5, 0, 100_001)]).astype(np.float32)
    for offset in (np.float32(0), np.float32(17.25)):
        logits = x + offset
        got = sampling.softmax(logits).astype(np.float64)
        exact = np.exp(logits.astype(np.float64))
        ratio = got / exact
        assert np.abs(ratio / ratio.mean() - 1).max() < 2.0e-7  # 1.3e-7 and the final scaling's 6e-8


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    "steps", [[0, 1, 30], [0, 70, 140], [-1e9, 0, 2], [3e5, 3e5 + 40, 0], [-np.inf, 5, 4], [120, 0, 60]]
)
def test_softmax_is_relative_to_the_largest_of_all_groups(steps, in_place):
    """Weights are taken relative to the largest so far; later, larger ones must rescale the earlier."""
    logits = np.repeat(np.array(steps, np.float32), 1100) + make_row("normal", 3300, 1, 1.0)
    expected = ref.softmax(logits)
    out = logits.copy() if in_place else np.empty_like(logits)
    sampling.softmax(out if in_place else logits, out=out)
    np.testing.assert_allclose(out, expected, rtol=1e-5 if max(steps) > 1e4 else 1e-6, atol=1.5e-45)


@pytest.mark.parametrize("at", [3, 1500, 3299])
def test_softmax_of_irregular_rows_in_place(at):
    for value, expected in ((np.nan, np.full(3300, np.nan)), (np.inf, np.arange(3300) == at)):
        logits = make_row("normal", 3300, 1)
        logits[at] = value
        sampling.softmax(logits, out=logits)
        np.testing.assert_array_equal(logits, expected)
    logits = np.full(3300, -np.inf, np.float32)
    assert np.isnan(sampling.softmax(logits, out=logits)).all()


def test_draws_follow_the_distribution():
    from scipy import stats

    logits = make_row("normal", 40, 3, 1.0)
    n = 40_000
    batch = np.broadcast_to(logits, (n, 40))  # stride 0: one row, drawn many times
    for params in ({}, {"temperature": 0.6, "top_k": 12}, {"top_p": 0.8, "temperature": 1.4}):
        mask, _ = ref.kept(logits, **params)
        p = np.where(mask, ref.softmax(logits, params.get("temperature", 1.0)), 0)
        p /= p.sum()
        drawn = sampling.sample_batch(batch, seed=np.arange(n), **params)
        counts = np.bincount(drawn, minlength=40)
        assert not counts[~mask].any()
        assert stats.chisquare(counts[mask], p[mask] * n).pvalue > 1e-4
        drawn = sampling.multinomial(np.broadcast_to(p.astype(np.float32), (n, 40)), seed=5)
        assert stats.chisquare(np.bincount(drawn, minlength=40)[mask], p[mask] * n).pvalue > 1e-4


@some
@given(st.integers(1, 3000), st.integers(0, 2**32), st.sampled_from([1.0, 1e-30, 3e20, 0.002]), st.booleans())
def test_multinomial_inverts_the_distribution_function(n, seed, scale, sparse):
    rng = np.random.default_rng(seed)
    probs = (rng.random(n) ** 6 * scale).astype(np.float32)
    if sparse:
        probs[rng.random(n) < 0.9] = 0
    probs[rng.integers(n)] = scale
    cdf = np.cumsum(probs, dtype=np.float64)
    u = ref.random_bits(seed, 0, 4) / 2**64 * cdf[-1]
    got = sampling.multinomial(probs, seed=seed, token_index=4)
    assert probs[got] > 0
    assert got == np.searchsorted(cdf, u, side="right") or np.abs(cdf - u).min() < 1e-8 * cdf[-1]


def test_multinomial_takes_negative_zeros():
    probs = np.full(3000, -0.0, np.float32)
    probs[[7, 2500]] = 0.5
    assert {sampling.multinomial(probs, seed) for seed in range(20)} == {7, 2500}


penalties = st.fixed_dictionaries(
    {
        "repetition_penalty": st.sampled_from([1.0, 1.1, 2.0, 0.7]),
        "frequency_penalty": st.sampled_from([0.0, 0.5, -0.3]),
        "presence_penalty": st.sampled_from([0.0, 0.5, -1.0]),
    }
)


@some
@given(rows, st.data(), penalties)
def test_penalties(logits, data, p):
    n = len(logits)
    ids = st.lists(st.integers(0, n - 1), max_size=60)
    prompt, output = data.draw(ids), data.draw(ids)
    expected = ref.penalize(logits, prompt, output, **p).astype(np.float32)
    counts = np.bincount(output, minlength=n).astype(np.int32)
    everything = np.unique(np.array(prompt + output, np.int32))
    by_list, by_ids, by_counts = logits.copy(), logits.copy(), logits.copy()
    sampling.apply_penalties(by_list, output, np.array([*prompt, -1, -1], np.int32), **p)
    np.testing.assert_allclose(by_list, expected, rtol=1e-6, atol=1e-6)
    sampling.apply_penalties(by_ids, prompt_ids=everything, counts=counts, **p)
    np.testing.assert_allclose(by_ids, expected, rtol=1e-6, atol=1e-6)
    sampling.apply_penalties(by_counts, counts=counts, **p)
    np.testing.assert_allclose(by_counts, ref.penalize(logits, [], output, **p), rtol=1e-6, atol=1e-6)
    both = logits.copy()  # ids of both kinds next to known counts, and more of them than the vocabulary
    sampling.apply_penalties(both, output * (2 + n // max(len(output), 1)), prompt, counts, **p)
    np.testing.assert_allclose(both, expected, rtol=1e-6, atol=1e-6)


def test_bitmask_and_temperature():
    logits = make_row("normal", 1000, 1)
    allowed = np.random.default_rng(2).random(1000) < 0.3
    words = np.zeros(32 * 32, bool)
    words[:1000] = allowed
    bits = np.packbits(words, bitorder="little").view(np.int32)
    got = logits.copy()
    sampling.apply_bitmask(got, bits)
    np.testing.assert_array_equal(got, np.where(allowed, logits, -np.inf))
    for seed in range(20):
        assert allowed[sampling.sample_batch(logits, bitmask=bits, seed=seed)]
    got = logits.copy()
    sampling.apply_temperature(got, 0.7)
    np.testing.assert_array_equal(got, logits / np.float32(0.7))


def test_greedy_takes_the_first_of_the_largest():
    logits = np.zeros(5000, np.float32)
    logits[[4000, 3100, 4999]] = 2
    logits[10] = -0.0
    assert sampling.argmax(logits) == sampling.sample_batch(logits, temperature=0.0) == 3100
    assert sampling.argmax(np.zeros(40, np.float32)) == 0


def test_argmax_wherever_a_row_begins():
    """Rows are read from their first aligned vector on; what lies before it is read apart."""
    memory = np.full(2200, 99, np.float32)
    for begin in range(17):
        for n in (1, 7, 40, 1100, 2100):
            logits = memory[begin : begin + n]
            logits[:] = make_row("normal", n, begin)
            for at in {0, n // 2, n - 1}:
                old = logits[at]
                logits[at] = 99
                assert sampling.argmax(logits) == at
                logits[at] = np.nan
                assert sampling.argmax(logits) == -1
                logits[at] = old
            assert sampling.argmax(logits) == logits.argmax()
            logits[:] = 99
            assert sampling.argmax(logits) == 0


def test_infinities_and_nan():
    logits = make_row("normal", 3000, 1)
    logits[[7, 2000, 2999]] = np.inf
    drawn = {sampling.sample_batch(logits, top_p=0.9, seed=s) for s in range(60)}
    assert drawn == {7, 2000, 2999}
    assert sampling.argmax(logits) == 7
    assert sampling.apply_top_k(logits.copy(), 2) == 2
    np.testing.assert_allclose(sampling.softmax(logits)[[6, 7, 2999]], [0, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(sampling.log_softmax(logits)[[6, 7]], [-np.inf, -np.log(3)], rtol=1e-6)

    batch = np.stack([make_row("normal", 3000, s) for s in range(4)])
    batch[1, 2998] = np.nan
    batch[3] = -np.inf
    assert (sampling.argmax(batch) < 0).tolist() == [False, True, False, True]
    assert (sampling.sample_batch(batch, seed=1, top_p=0.5) < 0).tolist() == [False, True, False, True]
    before = batch.copy()
    assert (sampling.apply_top_p(batch, 0.5) < 0).tolist() == [False, True, False, True]
    np.testing.assert_array_equal(batch[[1, 3]], before[[1, 3]])
    ids, _ = sampling.top_logprobs(batch, 3)
    assert (ids[[1, 3]] == -1).all() and (ids[[0, 2]] >= 0).all()
    assert np.isnan(sampling.softmax(batch)[[1, 3]]).all()
