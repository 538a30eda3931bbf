"""Every op of the CUDA backend against the CPU's, in bf16 and f16, over the cases of tests/cases.py."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_harness import CHECKED, DTYPES, GAP, assert_close, check_against_cpu, half, has_kernel, rounded, run

from cases import Case
from op_reference import narrow, normal, widen
from rvllm._native import opcall, operands
from rvllm._native.ops import op_table


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gap", [0, GAP], ids=["whole", "view"])
@pytest.mark.parametrize("case", [c for c in CHECKED if has_kernel(c)], ids=str)
def test_op_against_cpu(cuda: opcall.Cuda, cpu: opcall.Cpu, case: Case, gap: int, dtype: str) -> None:
    check_against_cpu(cuda, cpu, case, gap, dtype)


def test_every_op_has_a_case() -> None:
    assert {c.op for c in CHECKED if has_kernel(c)} >= set(op_table())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 64, 64), (3, 100, 72), (70, 257, 328), (300, 640, 512)])
def test_linear(cuda: opcall.Cuda, cpu: opcall.Cpu, m: int, n: int, k: int, dtype: str) -> None:
    rng = np.random.default_rng(m)
    x, w, b = (narrow(a, dtype) for a in (normal(rng, m, k), normal(rng, n, k) * np.float32(k**-0.5), normal(rng, n)))
    for y in (np.empty((m, n), x.dtype), np.empty((m, n), np.float32)):
        cuda.run("linear", [x], [cuda.weight(w), cuda.weight(widen(b))], [y])
        want = widen(x) @ widen(w).T + widen(b)
        assert_close(widen(y), want, "f32" if y.dtype == np.float32 else dtype, 1.0, 2e-5)


# ---- fused == composition, in place, the step -------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_rms_norm_is_add_then_rms_norm(cuda: opcall.Cuda, dtype: str) -> None:
    for case in (c for c in CHECKED if c.op == "add_rms_norm"):
        p = rounded(case.problem(), case.op, dtype)
        total, y = np.empty_like(p.inputs[0]), np.empty_like(p.inputs[0])
        cuda.run("add", p.inputs, [], [total])
        cuda.run("rms_norm", [total], [cuda.weight(p.weights[0])], [y], p.attrs)
        got, _, _ = run(cuda, case.op, p, 0, dtype)
        assert [widen(y).tobytes(), widen(total).tobytes()] == [g.tobytes() for g in got]


def test_block_copies_and_fed_back_tokens(cuda: opcall.Cuda) -> None:
    """A step's copies run in order before its ops; a negative token id is the token of that slot."""
    rng = np.random.default_rng(0)
    table = narrow(normal(rng, 50, 64), half())
    k, v = (narrow(normal(rng, 2, 6, 2, 16, 64), half()) for _ in range(2))
    cache = operands.KvCache(k.copy(), v.copy())
    ids = np.array([3, -1, -3], np.int32)
    step = operands.Step(
        token_ids=ids, last_token=[11, 12, 13], n_tokens=3, copies=[(0, 0, 1), (0, 1, 2), (0, 4, 5)], n_rows=3
    )
    x = narrow(normal(rng, 3, 128), half())
    cuda.run(
        "kv_write", [x, x, np.array([-1, -1, -1], np.int32)], [], [], {"n_kv_heads": 2, "head_dim": 64}, step, cache
    )
    for got, was in ((cache.k, k), (cache.v, v)):
        want = was.copy()
        want[:, 1], want[:, 2], want[:, 5] = was[:, 0], was[:, 0], was[:, 4]
        assert got.tobytes() == want.tobytes()
    assert table.shape == (50, 64)


@pytest.mark.parametrize(("n_layers", "n_kv_heads", "head_dim"), [(2, 2, 64), (5, 3, 80), (28, 4, 128)])
def test_blocks_move_between_the_tiers(cuda: opcall.Cuda, n_layers: int, n_kv_heads: int, head_dim: int) -> None:
    """Random copies, each of which may read or write over what one before it wrote, in one step."""
    rng = np.random.default_rng(1)
    n_blocks, n_host_blocks = 7, 5
    k, v = (narrow(normal(rng, n_layers, n_blocks, n_kv_heads, 16, head_dim), half()) for _ in range(2))
    host = narrow(normal(rng, n_host_blocks, 2, n_layers, n_kv_heads, 16, head_dim), half())
    pairs = rng.integers(0, n_blocks + n_host_blocks, (80, 2))
    copies = [(0, int(s), int(d)) for s, d in pairs if s != d and min(s, d) < n_blocks]
    cache = operands.KvCache(k.copy(), v.copy(), host.copy())
    x = narrow(normal(rng, 1, n_kv_heads * head_dim), half())
    cuda.run(
        *("kv_write", [x, x, np.array([-1], np.int32)], [], [], {"n_kv_heads": n_kv_heads, "head_dim": head_dim}),
        operands.Step(n_tokens=1, copies=copies, n_rows=1),
        cache,
    )
    blocks = [np.stack([k[:, b], v[:, b]]) for b in range(n_blocks)] + list(host)
    for _, src, dst in copies:
        blocks[dst] = blocks[src]
    for b, want in enumerate(blocks):
        got = np.stack([cache.k[:, b], cache.v[:, b]]) if b < n_blocks else cache.host[b - n_blocks]
        assert got.tobytes() == want.tobytes(), f"block {b}"
