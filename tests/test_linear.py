"""The matrix product and its weights: every kernel, every block boundary, rows that never depend on their batch."""

from __future__ import annotations

import numpy as np
import pytest

from op_harness import OTHER_SETS, Output, first_run_only, run_again, view_of
from op_reference import narrow, widen
from rvllm._native import opcall

DTYPES = ["f32", "f16", "bf16"]
# One row, every number of rows around a block of the kernels (3, 6, 14), two blocks, more than are packed at a time.
ROWS = [1, 2, 3, 4, 5, 6, 7, 8, 13, 14, 15, 16, 17, 28, 29, 33, 64, 128, 300]


@pytest.fixture(scope="module")
def cpu() -> opcall.Cpu:
    return opcall.Cpu(2)


def rounds_activations(dtype: str) -> bool:
    return dtype == "bf16" and opcall.isa_in_use() == "avx512_bf16"


def product(cpu: opcall.Cpu, x: np.ndarray, w: object, n: int, bias: object = None) -> np.ndarray:
    y = np.full((len(x), n), np.nan, np.float32)
    cpu.run("linear", [x], [w, bias], [y])
    return y


# ---- results ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (15, 2), (33, 31), (65, 130), (200, 257), (96, 64)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_against_float64(cpu: opcall.Cpu, dtype: str, n: int, k: int, bias: bool) -> None:
    rng = np.random.default_rng(n * 1000 + k)
    w = narrow(rng.standard_normal((n, k), np.float32), dtype)
    b = rng.standard_normal(n, np.float32) if bias else None
    packed, packed_bias = cpu.weight(w), None if b is None else cpu.weight(b)
    exact_w = widen(w).astype(np.float64).T
    for m in (1, 2, 3, 5, 8, 16, 17, 33, 128):
        x = rng.standard_normal((m, k), np.float32)
        out = Output((m, n), gap=3)
        kernel = cpu.run("linear", [view_of(x, 2)], [packed, packed_bias], [out.array])
        assert kernel.startswith(f"linear.{dtype}.")
        out.check_guards()
        exact_x = (widen(narrow(x, "bf16")) if rounds_activations(dtype) else x).astype(np.float64)
        expected = exact_x @ exact_w + (0 if b is None else b)
        magnitude = abs(exact_x) @ abs(exact_w) + (0 if b is None else abs(b))
        # k additions in float32 in a chain; vdpbf16ps also drops subnormals.
        assert (abs(out.array - expected) <= (k + 4) * 2.0**-24 * magnitude + 1e-37).all(), f"m={m}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_k_go_on_where_the_last_one_stopped(cpu: opcall.Cpu, dtype: str) -> None:
    """Small integers: float32 sums are exact, whatever their order. K spans several blocks."""
    rng = np.random.default_rng(7)
    n, k = 40, 11_003
    w = rng.integers(-3, 4, (n, k)).astype(np.float32)
    x = rng.integers(-3, 4, (31, k)).astype(np.float32)
    b = rng.integers(-9, 9, n).astype(np.float32)
    packed, bias = cpu.weight(narrow(w, dtype)), cpu.weight(b)
    for m in (1, 14, 31):
        assert (product(cpu, x[:m], packed, n, bias) == x[:m] @ w.T + b).all()


# ---- a row does not depend on its batch ----------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(100, 259), (65, 6001), (1000, 900)], ids=["small", "long", "large"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_the_same_in_every_batch(cpu: opcall.Cpu, dtype: str, n: int, k: int) -> None:
    rng = np.random.default_rng(k)
    w = cpu.weight(narrow(rng.standard_normal((n, k), np.float32), dtype))
    bias = cpu.weight(rng.standard_normal(n, np.float32))
    x = rng.standard_normal((max(ROWS), k), np.float32)
    whole = product(cpu, x, w, n, bias)
    for m in ROWS:
        start = (max(ROWS) - m) // 2
        part = product(cpu, x[start : start + m], w, n, bias)
        assert part.tobytes() == whole[start : start + m].tobytes(), f"m={m}"


def test_threads_do_not_change_a_bit() -> None:
    rng = np.random.default_rng(3)
    w, x = rng.standard_normal((300, 700), np.float32), rng.standard_normal((70, 700), np.float32)
    results = set()
    for n_threads in (1, 2, 3, 16):
        cpu = opcall.Cpu(n_threads)
        results.add(product(cpu, x, cpu.weight(narrow(w, "bf16")), 300).tobytes())
    assert len(results) == 1


def test_a_row_of_nan_spoils_no_other(cpu: opcall.Cpu) -> None:
    rng = np.random.default_rng(4)
    w = cpu.weight(narrow(rng.standard_normal((50, 77), np.float32), "bf16"))
    x = rng.standard_normal((20, 77), np.float32)
    clean = product(cpu, x, w, 50)
    x[9] = np.nan
    y = product(cpu, x, w, 50)
    assert np.isnan(y[9]).all()
    assert np.delete(y, 9, 0).tobytes() == np.delete(clean, 9, 0).tobytes()


# ---- packed weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 8), (33, 7), (70, 131)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_packing_keeps_every_bit(cpu: opcall.Cpu, dtype: str, n: int, k: int) -> None:
    w = narrow(np.random.default_rng(n).standard_normal((n, k), np.float32), dtype)
    packed = cpu.weight(w)
    assert packed.unpack().tobytes() == widen(w).tobytes()
    assert packed.unpack(n // 2, n - n // 2).tobytes() == widen(w)[n // 2 :].tobytes()
    width, group = 32 if "avx512" in opcall.isa_in_use() else 16, 2 if dtype == "bf16" else 1
    padded = -(-n // width) * width * (-(-k // group) * group)
    assert packed.nbytes == padded * (4 if dtype == "f32" else 2), "resident bytes: the source's type, panels padded"


SPECIAL = [0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1 + 3 * 2**-11, 65504.0, 65519.9, 65520.0, 1e-8, 6e-8]
SPECIAL += [2**-25, 1.5 * 2**-24, 3e38, -3.4e38, np.inf, -np.inf, np.nan, 1e-40]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("source", DTYPES)
def test_packing_rounds_to_nearest_even(cpu: opcall.Cpu, source: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    types = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
    rng = np.random.default_rng(5)
    values = np.concatenate([np.array(SPECIAL, np.float32), rng.standard_normal(980).astype(np.float32)])
    values = np.concatenate([values, rng.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)]).reshape(50, 100)
    src = narrow(values, source)
    expected = torch.from_numpy(widen(src).copy()).to(types[dtype]).float().numpy()
    got = cpu.weight(src, dtype=dtype).unpack()
    assert (np.isnan(got) == np.isnan(expected)).all()
    assert (np.signbit(got) == np.signbit(expected))[~np.isnan(got)].all()
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_embed_reads_the_rows_of_the_same_weight(cpu: opcall.Cpu, dtype: str) -> None:
    w = cpu.weight(narrow(np.random.default_rng(6).standard_normal((77, 301), np.float32), dtype))
    ids = np.array([0, 76, 31, 32, 31, *range(77)], np.int32)
    out = Output((len(ids), 301), gap=2)
    assert cpu.run("embed", [ids], [w], [out.array]) == f"embed.{dtype}"
    out.check_guards()
    assert np.ascontiguousarray(out.array).tobytes() == w.unpack()[ids].tobytes()


@first_run_only
@pytest.mark.parametrize("set_", OTHER_SETS)
def test_other_instruction_sets(set_: str) -> None:
    run_again(set_, __file__)
