"""Paged attention: against float64 and torch, and bitwise the same however the work is cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from cases import random_paged
from op_harness import OTHER_SETS, Output, first_run_only, run_again, view_of
from op_reference import attention, narrow, normal, widen
from rvllm._native import opcall, operands

LAYER = 1


@pytest.fixture(scope="module")
def cpu() -> opcall.Cpu:
    return opcall.Cpu(2)


def run(
    cpu: opcall.Cpu,
    q: np.ndarray,
    step: dict[str, Any],
    cache: tuple[np.ndarray, np.ndarray],
    n_heads: int,
    scale: float | None = None,
    gap: int = 0,
) -> np.ndarray:
    """Run the op; `gap` puts q and y in columns of wider arrays."""
    n_kv_heads, head_dim = cache[0].shape[2], cache[0].shape[4]
    y = Output((len(q), n_heads * head_dim), gap)
    attrs = {
        "layer": LAYER,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "head_dim": head_dim,
        "softmax_scale": scale or head_dim**-0.5,
    }
    x = view_of(q, gap) if gap else q
    cpu.run("attention", [x], [], [y.array], attrs, operands.Step(**step), operands.KvCache(*cache))
    y.check_guards()
    return np.ascontiguousarray(y.array)


def part_of(step: dict[str, Any], seqs: list[tuple[int, int, int]]) -> tuple[np.ndarray, dict[str, Any]]:
    """Return (token indices, step) of some query ranges: (sequence, first query, end)."""
    starts = step["query_start"]
    tokens = np.concatenate([np.arange(starts[s] + a, starts[s] + b) for s, a, b in seqs])
    return tokens, {
        "query_start": np.cumsum([0, *(b - a for _, a, b in seqs)]).tolist(),
        "positions": [step["positions"][t] for t in tokens],
        "tables": [step["tables"][s] for s, _, _ in seqs],
    }


MIXED = ([1, 2, 70, 33, 200, 1100, 65], [1, 1, 70, 1, 20, 3, 33])  # keys, new tokens


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("head_dim", [40, 64, 80, 96, 128, 256])
@pytest.mark.parametrize("group", [1, 2, 4, 7, 8])
def test_mixed_batch(cpu: opcall.Cpu, group: int, head_dim: int, dtype: str) -> None:
    rng = np.random.default_rng(head_dim + group)
    cache, step = random_paged(rng, *MIXED, 2, head_dim, dtype)
    q = normal(rng, sum(MIXED[1]), 2 * group * head_dim)
    y = run(cpu, q, step, cache, 2 * group)
    expected = attention(q, *cache, LAYER, step, 2 * group, head_dim**-0.5)
    assert abs(y - expected).max() < 3e-6


@pytest.mark.parametrize("block_size", [8, 16, 24, 128])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_block_sizes_and_views(cpu: opcall.Cpu, block_size: int, dtype: str) -> None:
    rng = np.random.default_rng(block_size)
    cache, step = random_paged(rng, *MIXED, 2, 64, dtype, block_size)
    q = normal(rng, sum(MIXED[1]), 8 * 64)
    y = run(cpu, q, step, cache, 8, gap=3)
    assert abs(y - attention(q, *cache, LAYER, step, 8, 0.125)).max() < 3e-6
    assert y.tobytes() == run(cpu, q, step, cache, 8).tobytes()


@pytest.mark.parametrize("n_keys", [1, 15, 16, 17, 63, 64, 65, 127, 1023, 1024, 1025, 2048, 2049, 3000])
def test_decode_at(cpu: opcall.Cpu, n_keys: int) -> None:
    rng = np.random.default_rng(n_keys)
    cache, step = random_paged(rng, [n_keys], [1], 2, 64, "bf16")
    q = normal(rng, 1, 14 * 64)
    y = run(cpu, q, step, cache, 14)
    assert abs(y - attention(q, *cache, LAYER, step, 14, 0.125)).max() < 3e-6


def test_large_scores_and_weights(cpu: opcall.Cpu) -> None:
    """One key takes all the weight, first or last: the running maximum does its work."""
    rng = np.random.default_rng(0)
    cache, step = random_paged(rng, [1300], [40], 1, 64, "f32")
    q = 200 * normal(rng, 40, 4 * 64)
    y = run(cpu, q, step, cache, 4)
    expected = attention(q, *cache, LAYER, step, 4, 0.125)
    # The error of a score is relative to its size, about 1,000 here; its exponential has it as absolute.
    assert np.isfinite(y).all() and abs(y - expected).max() < 2e-3


def test_many_heads_on_one_kv_head(cpu: opcall.Cpu) -> None:
    """More rows per query than a tile holds."""
    rng = np.random.default_rng(0)
    cache, step = random_paged(rng, [1100, 5], [2, 5], 1, 32, "f32")
    q = normal(rng, 7, 71 * 32)
    y = run(cpu, q, step, cache, 71)
    assert abs(y - attention(q, *cache, LAYER, step, 71, 32**-0.5)).max() < 3e-6


def test_empty_sequences_are_skipped(cpu: opcall.Cpu) -> None:
    rng = np.random.default_rng(0)
    cache, step = random_paged(rng, [30, 40], [1, 2], 1, 64, "f32")
    q = normal(rng, 3, 64)
    y = run(cpu, q, step, cache, 1)
    step["query_start"] = [0, 0, 1, 1, 3]
    step["tables"] = [[], step["tables"][0], [], step["tables"][1]]
    assert y.tobytes() == run(cpu, q, step, cache, 1).tobytes()


@pytest.mark.parametrize(("head_dim", "group", "dtype"), [(64, 7, "bf16"), (128, 1, "f16"), (80, 4, "f32")])
def test_chunks_batches_and_threads_do_not_change_a_bit(cpu: opcall.Cpu, head_dim: int, group: int, dtype: str) -> None:
    """Whole prefill == chunked == one token at a time == in any batch, on any number of threads."""
    rng = np.random.default_rng(7)
    lengths, new = [2100, 90, 1030], [60, 90, 12]
    cache, step = random_paged(rng, lengths, new, 2, head_dim, dtype)
    q = normal(rng, sum(new), 2 * group * head_dim)
    whole = run(cpu, q, step, cache, 2 * group)
    assert abs(whole - attention(q, *cache, LAYER, step, 2 * group, head_dim**-0.5)).max() < 3e-6
    for n_threads in (1, 3, 8):
        assert run(opcall.Cpu(n_threads), q, step, cache, 2 * group).tobytes() == whole.tobytes()

    def same(parts: list[tuple[int, int, int]], n_threads: int = 2) -> None:
        tokens, some = part_of(step, parts)
        y = run(opcall.Cpu(n_threads), q[tokens], some, cache, 2 * group)
        assert y.tobytes() == whole[tokens].tobytes(), parts

    for s in range(3):
        same([(s, 0, new[s])])
        cuts = [0, *sorted(rng.permutation(np.arange(1, new[s]))[:3].tolist()), new[s]]
        for a, b in pairwise(cuts):
            same([(s, a, b)], n_threads=4)
    for t in (0, 7, 11):  # decodes: alone, where threads share its keys, and together
        same([(0, t, t + 1)], n_threads=8)
        same([(0, t, t + 1)], n_threads=1)
        same([(2, t, t + 1), (0, t + 1, t + 2), (1, t, t + 30)])


def test_second_cache_group(cpu: opcall.Cpu) -> None:
    """Layers of another group have a cache of another shape."""
    rng = np.random.default_rng(5)
    cache, step = random_paged(rng, [50, 20], [3, 1], 2, 64, "bf16")
    other, _ = random_paged(rng, [8], [1], 1, 32, "f32", block_size=8)
    q = normal(rng, 4, 4 * 64)
    y = np.full_like(q, np.nan)
    attrs = {"layer": LAYER, "group": 1, "n_heads": 4, "n_kv_heads": 2, "head_dim": 64, "softmax_scale": 0.125}
    groups = [operands.KvCache(*other), operands.KvCache(*cache)]
    assert ".bf16." in cpu.run("attention", [q], [], [y], attrs, operands.Step(**step), groups)
    assert y.tobytes() == run(cpu, q, step, cache, 4).tobytes()


def test_padding_of_the_cache_is_never_read(cpu: opcall.Cpu) -> None:
    """NaN behind a sequence's last key and in all other blocks (as random_paged leaves it) stays there."""
    rng = np.random.default_rng(3)
    cache, step = random_paged(rng, [5, 70, 1025], [1, 3, 1], 2, 128, "bf16")
    assert np.isnan(widen(cache[0])).any()
    assert np.isfinite(run(cpu, normal(rng, 5, 4 * 128), step, cache, 4)).all()


def test_nan_keys_give_nan(cpu: opcall.Cpu) -> None:
    rng = np.random.default_rng(3)
    cache, step = random_paged(rng, [70, 40], [1, 1], 1, 64, "f32")
    cache[0][LAYER, step["tables"][0][1], 0, 3, 5] = np.nan
    y = run(cpu, normal(rng, 2, 2 * 64), step, cache, 2)
    assert np.isnan(y[0]).all() and np.isfinite(y[1]).all()


@first_run_only
def test_against_torch(cpu: opcall.Cpu) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(11)
    n, n_heads, n_kv_heads, head_dim = 150, 6, 2, 64
    k, v = (normal(rng, 2, 10, n_kv_heads, 16, head_dim) for _ in range(2))
    table = rng.permutation(10).tolist()
    q = normal(rng, n, n_heads * head_dim)
    step = {"query_start": [0, n], "positions": list(range(n)), "tables": [table]}
    heads = [torch.from_numpy(q.reshape(n, n_heads, head_dim)).transpose(0, 1)]
    for c in (k, v):
        in_order = c[LAYER][table].transpose(1, 0, 2, 3).reshape(n_kv_heads, -1, head_dim)
        heads += [torch.from_numpy(in_order[:, :n])]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)
    y = run(cpu, q, step, (k, v), n_heads)
    assert abs(y - expected.transpose(0, 1).reshape(n, -1).numpy()).max() < 3e-6


def test_16_bit_cache_is_read_exactly(cpu: opcall.Cpu) -> None:
    """A 16-bit cache gives, to the bit, what its float32 copy gives."""
    rng = np.random.default_rng(2)
    for dtype in ("f16", "bf16"):
        cache, step = random_paged(rng, [100, 30], [40, 1], 2, 96, dtype)
        q = normal(rng, 41, 8 * 96)
        wide = (widen(cache[0]), widen(cache[1]))
        assert run(cpu, q, step, cache, 8).tobytes() == run(cpu, q, step, wide, 8).tobytes()
        assert narrow(wide[0], dtype).tobytes() == cache[0].tobytes()


@first_run_only
@pytest.mark.parametrize("set_", [s for s in OTHER_SETS if s != "avx512"])  # avx512_bf16 has the same kernels
def test_other_instruction_set(set_: str) -> None:
    run_again(set_, __file__, "-k", "not mixed_batch or 4-80 or 7-64 or 1-40 or 8-128 or 2-256")
