"""Attention on CUDA against the CPU's: lengths around blocks and tiles, chunks, groups of heads, batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from cuda_harness import assert_attention, half

from cases import narrow, normal, random_paged, widen
from rvllm._native import opcall, operands

DTYPES = ("bf16", "f16")
HEAD_DIMS = (64, 80, 96, 128, 256)
MIXED = ([1, 2, 70, 33, 200, 1100, 65, 700], [1, 1, 70, 1, 20, 3, 33, 1])  # keys, new tokens


def attend(ops: opcall.Ops, q: np.ndarray, step: dict, cache: tuple, n_heads: int, y_dtype: np.dtype) -> np.ndarray:
    n_kv_heads, head_dim = cache[0].shape[2], cache[0].shape[4]
    attrs = {
        "layer": 1,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "head_dim": head_dim,
        "softmax_scale": head_dim**-0.5,
    }
    y = np.zeros(q.shape, y_dtype)
    ops.run("attention", [q], [], [y], attrs, operands.Step(**step), operands.KvCache(*cache))
    return y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("group", [1, 4, 7, 20])
def test_attention_mixed_batch(cuda: opcall.Cuda, cpu: opcall.Cpu, group: int, head_dim: int, dtype: str) -> None:
    rng = np.random.default_rng(head_dim + group)
    cache, step = random_paged(rng, *MIXED, 2, head_dim, dtype)
    q = narrow(normal(rng, sum(MIXED[1]), 2 * group * head_dim), dtype)
    got = widen(attend(cuda, q, step, cache, 2 * group, q.dtype))
    assert_attention(got, attend(cpu, widen(q), step, cache, 2 * group, np.dtype(np.float32)), dtype)


@pytest.mark.parametrize("block_size", [16, 32, 128])
def test_attention_block_sizes(cuda: opcall.Cuda, cpu: opcall.Cpu, block_size: int) -> None:
    rng = np.random.default_rng(block_size)
    cache, step = random_paged(rng, *MIXED, 2, 64, half(), block_size)
    q = narrow(normal(rng, sum(MIXED[1]), 8 * 64), half())
    got = widen(attend(cuda, q, step, cache, 8, q.dtype))
    assert_attention(got, attend(cpu, widen(q), step, cache, 8, np.dtype(np.float32)), half())


def test_block_size_that_is_no_multiple_of_16_is_refused(cuda: opcall.Cuda) -> None:
    rng = np.random.default_rng(0)
    cache, step = random_paged(rng, [20], [1], 2, 64, half(), 8)
    q = narrow(normal(rng, 1, 8 * 64), half())
    with pytest.raises(MemoryError, match="block size"):
        attend(cuda, q, step, cache, 8, q.dtype)


@pytest.mark.parametrize("length", [255, 256, 257, 8191, 8193, 20000])
def test_attention_long_decode(cuda: opcall.Cuda, cpu: opcall.Cpu, length: int) -> None:
    rng = np.random.default_rng(length)
    cache, step = random_paged(rng, [length], [1], 1, 64, half())
    q = narrow(4 * normal(rng, 1, 4 * 64), half())
    got = widen(attend(cuda, q, step, cache, 4, q.dtype))
    assert_attention(got, attend(cpu, widen(q), step, cache, 4, np.dtype(np.float32)), half())


def test_attention_of_a_row_does_not_depend_on_the_batch(cuda: opcall.Cuda) -> None:
    rng = np.random.default_rng(1)
    keys, new = ([*MIXED[i], *more] for i, more in enumerate((range(1, 57), [1] * 56)))  # 64: as many as it holds for
    cache, step = random_paged(rng, keys, new, 2, 128, half())
    q = narrow(normal(rng, sum(new), 14 * 128), half())
    together = attend(cuda, q, step, cache, 14, q.dtype)
    starts = step["query_start"]
    for s, table in enumerate(step["tables"]):
        part = slice(starts[s], starts[s + 1])
        alone = {"query_start": [0, part.stop - part.start], "positions": step["positions"][part], "tables": [table]}
        assert attend(cuda, q[part].copy(), alone, cache, 14, q.dtype).tobytes() == together[part].tobytes(), s


# Around blocks (16), tiles of keys (32, 64, 128), what is not split (768) and splits.
LENGTHS = [1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 767, 769, 1000, 1024, 4097]
CHUNKS = [(n, m) for n in LENGTHS for m in (2, 18, 19, 130) if m <= n] + [(n, n) for n in LENGTHS if 1 < n < 1000]


@pytest.mark.parametrize("group", [1, 4, 7, 8])
@pytest.mark.parametrize("kind", ["decode", "chunks", "mixed"])
def test_attention_lengths(cuda: opcall.Cuda, cpu: opcall.Cpu, kind: str, group: int) -> None:
    """Every length and chunk in one batch, rows that no other sequence touches; then each decode row alone."""
    seqs = {"decode": [(n, 1) for n in LENGTHS], "chunks": CHUNKS}
    seqs["mixed"] = seqs["decode"] + CHUNKS[::5]
    rng = np.random.default_rng(group)
    keys, new = ([s[i] for s in seqs[kind]] for i in (0, 1))
    cache, step = random_paged(rng, keys, new, 2, 128, half())
    q = narrow(normal(rng, sum(new), 2 * group * 128), half())
    y = attend(cuda, q, step, cache, 2 * group, q.dtype)
    want = attend(cpu, widen(q), step, cache, 2 * group, np.dtype(np.float32))
    for s, (n, m) in enumerate(seqs[kind]):
        part = slice(step["query_start"][s], step["query_start"][s + 1])
        assert_attention(widen(y[part]), want[part], half())
        if m == 1 and kind == "mixed":
            alone = {"query_start": [0, 1], "positions": [n - 1], "tables": [step["tables"][s]]}
            assert attend(cuda, q[part].copy(), alone, cache, 2 * group, q.dtype).tobytes() == y[part].tobytes(), n


# More sequences than equal bits are promised for: how many, heads of keys, group. An H200 gets teams of four warps, of
# two and of one.
BATCHES = {"few": (66, 2, 7), "more": (140, 2, 1), "many": (280, 2, 12)}


def check_batch(cuda: opcall.Ops, cpu: opcall.Ops, seqs: list[tuple[int, int]], shape: tuple, dtype: str) -> None:
    """Sequences of (keys, new tokens): rows against the CPU's, one by one, and against a second run."""
    n_kv_heads, group, head_dim = shape
    rng = np.random.default_rng(len(seqs) + head_dim)
    cache, step = random_paged(rng, *([s[i] for s in seqs] for i in (0, 1)), n_kv_heads, head_dim, dtype)
    starts = step["query_start"]
    q = narrow(normal(rng, starts[-1], n_kv_heads * group * head_dim), dtype)
    y = attend(cuda, q, step, cache, n_kv_heads * group, q.dtype)
    want = attend(cpu, widen(q), step, cache, n_kv_heads * group, np.dtype(np.float32))
    for first, end in pairwise(starts):
        assert_attention(widen(y[first:end]), want[first:end], dtype)
    assert attend(cuda, q, step, cache, n_kv_heads * group, q.dtype).tobytes() == y.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("batch", BATCHES)
def test_attention_large_batches(cuda: opcall.Cuda, cpu: opcall.Cpu, batch: str, head_dim: int, dtype: str) -> None:
    n_seqs, n_kv_heads, group = BATCHES[batch]
    seqs = [(1 + 37 * s % 80, 1) for s in range(n_seqs)]
    seqs[20] = (75, 40)
    check_batch(cuda, cpu, seqs, (n_kv_heads, group, head_dim), dtype)


@pytest.mark.parametrize("n_seqs", [66, 100])
def test_attention_large_batches_that_split(cuda: opcall.Cuda, cpu: opcall.Cpu, n_seqs: int) -> None:
    """Teams of two warps on an H200, and of one, with short sequences behind the long ones and a prompt."""
    seqs = [(1025 + s % 16, 1) for s in range(66)] + [(1 + s * s % 300, 1) for s in range(n_seqs - 66)]
    if n_seqs > 66:
        seqs[70] = (300, 300)
    check_batch(cuda, cpu, seqs, (8, 2, 64), half())


def test_attention_again_and_again(cuda: opcall.Cuda) -> None:
    """Launches behind one another, each of which may start before the one before has ended, agree to the bit."""
    rng = np.random.default_rng(5)
    keys, new = [1100, 300, 40, 2000, 5000] * 30, [1, 1, 1, 33, 1] * 30
    cache, step = random_paged(rng, keys, new, 1, 64, half())
    q = narrow(normal(rng, sum(new), 4 * 64), half())
    y = np.zeros_like(q)
    attrs = {"layer": 0, "n_heads": 4, "n_kv_heads": 1, "head_dim": 64, "softmax_scale": 0.125}
    call = cuda.bind("attention", [q], [], [y], attrs, operands.Step(**step), operands.KvCache(*cache))
    call.run()
    first = y.copy()
    call.time_many(20)
    call.run()
    assert np.isfinite(widen(y)).all() and y.tobytes() == first.tobytes()
