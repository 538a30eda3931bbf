"""THE list of op cases: shapes, types, attributes, random inputs and a float64 reference.

Tests, benches and every backend share it. A case makes a Problem; a Problem says what to run and
what must come out. bf16 arrays are NumPy uint16, as in rvllm._native.opcall.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from op_reference import Array, Rng, attention, narrow, normal, rms_norm, rope, rope_table, silu, widen

F32_EPS = 2.0**-23
# Rounding of one element to a cache or weight type, relative.
EPS = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}


@dataclass
class Problem:
    """One run of an op. Outputs start as NaN; `expected` are float64, `tolerance` absolute per element."""

    inputs: list[Array | None]
    expected: list[Array]
    tolerance: list[Any]
    weights: list[Array | None] = field(default_factory=list)
    attrs: dict[str, Any] = field(default_factory=dict)
    step: dict[str, Any] = field(default_factory=dict)  # of operands.Step
    cache: tuple[Array, Array] | None = None
    expected_cache: tuple[Array, Array] | None = None  # after the op
    cache_tolerance: float | None = None  # relative; None: to the bit
    row_order: str = "plain"  # of the dense weight
    scratch: list[tuple[int, int]] = field(default_factory=list)  # shapes of outputs whose contents mean nothing
    flops: float = 0
    bytes: float = 0  # operands read and written once

    def packed_weights(self, ops: Any) -> list[Any]:
        """Pack the weights for a backend, an opcall.Ops."""
        orders = {1: "plain", 2: self.row_order}
        return [None if w is None else ops.weight(w, order=orders[w.ndim]) for w in self.weights]

    def check(self, outputs: list[Array], cache: tuple[Array, Array] | None = None) -> None:
        """Compare outputs and cache with what is expected. AssertionError: how many are wrong, and the first."""
        for name, got, expected in zip("kv", cache or (), self.expected_cache or (), strict=False):
            if self.cache_tolerance is None:
                assert got.tobytes() == expected.tobytes(), f"the {name} cache differs"
            else:
                error = abs(widen(got) - expected)
                assert (error <= self.cache_tolerance * (1 + abs(expected))).all(), f"the {name} cache differs"
        for got, expected, tolerance in zip(outputs, self.expected, self.tolerance, strict=True):
            # Equal covers infinities; whatever is NaN fails.
            good = (got == expected) | (abs(got - expected) <= tolerance)
            assert good.all(), f"{(~good).sum()} wrong, the first: {got[~good][0]} for {expected[~good][0]}"

    def __post_init__(self) -> None:
        arrays = [a for a in [*self.inputs, *self.weights] if a is not None]
        self.bytes = self.bytes or sum(a.nbytes for a in arrays) + sum(4.0 * e.size for e in self.expected)


@dataclass(frozen=True)
class Case:
    op: str
    label: str
    make: Callable[[Rng], Problem]
    bench: bool = False  # a shape of the tables of bench/ops.py

    def __str__(self) -> str:
        return f"{self.op} {self.label}"

    def problem(self) -> Problem:
        """Make the case's inputs: the same at every call."""
        return self.make(np.random.default_rng(abs(hash_of(str(self)))))


CASES: list[Case] = []


def add_case(op: str, label: str, make: Callable[[Rng], Problem], bench: bool = False) -> None:
    CASES.append(Case(op, label, make, bench))


def hash_of(text: str) -> int:
    """Return a seed that does not change between processes."""
    value = 0
    for byte in text.encode():
        value = (value * 131 + byte) % (2**61 - 1)
    return value


# ---- element-wise and norms -------------------------------------------------------------------------


def case_binary(op: str, fn: Callable[[Array, Array], Array], t: int, h: int, bench: bool = False) -> None:
    def make(rng: Rng) -> Problem:
        a, b = 4 * normal(rng, t, h), normal(rng, t, h)
        expected = fn(a.astype(np.float64), b.astype(np.float64))
        return Problem([a, b], [expected], [4 * F32_EPS * abs(expected) + 1e-37])

    add_case(op, f"{t}x{h}", make, bench)


def case_silu(t: int, h: int) -> None:
    def make(rng: Rng) -> Problem:
        x = rng.uniform(-30, 30, (t, h)).astype(np.float32)
        edges = [0.0, -0.0, 100.0, -87.0, -200.0, 1e-30, 3e38, -3e38]
        x.flat[: min(x.size, len(edges))] = edges[: x.size]
        expected = silu(x)
        return Problem([x], [expected], [4 * F32_EPS * abs(expected) + 1e-36])

    add_case("silu", f"{t}x{h}", make)


def case_rms_norm(t: int, h: int, scale: float, bench: bool = False) -> None:
    def make(rng: Rng) -> Problem:
        x, w = scale * normal(rng, t, h), normal(rng, h)
        expected = rms_norm(x, w, 1e-6)
        return Problem([x], [expected], [6 * F32_EPS * abs(expected)], [w], {"eps": 1e-6})

    add_case("rms_norm", f"{t}x{h} scale {scale:g}", make, bench)


def case_add_rms_norm(t: int, h: int, bench: bool = False) -> None:
    def make(rng: Rng) -> Problem:
        x, residual, w = normal(rng, t, h), normal(rng, t, h), normal(rng, h)
        total = x + residual  # rounded to float32, as the op's second output is
        expected = rms_norm(total, w, 1e-5)
        return Problem([x, residual], [expected, total], [6 * F32_EPS * abs(expected), 0.0], [w], {"eps": 1e-5})

    add_case("add_rms_norm", f"{t}x{h}", make, bench)


def case_head_norm(t: int, n_heads: int, head_dim: int) -> None:
    def make(rng: Rng) -> Problem:
        x, w = normal(rng, t, n_heads * head_dim), normal(rng, head_dim)
        expected = rms_norm(x.reshape(t, n_heads, head_dim), w, 1e-6).reshape(x.shape)
        attrs = {"eps": 1e-6, "head_dim": head_dim}
        return Problem([x], [expected], [6 * F32_EPS * abs(expected)], [w], attrs)

    add_case("head_norm", f"{t}x{n_heads}x{head_dim}", make)


# ---- linear, embed, take_rows -----------------------------------------------------------------------


def case_linear(m: int, n: int, k: int, dtype: str, bias: bool, bench: bool = False) -> None:
    def make(rng: Rng) -> Problem:
        x, w = normal(rng, m, k), narrow(normal(rng, n, k) / np.float32(k**0.5), dtype)
        b = normal(rng, n) if bias else None
        expected = x.astype(np.float64) @ widen(w).astype(np.float64).T + (0 if b is None else b)
        # A kernel may round x to the type of the weights, and adds k products in float32.
        eps = EPS[dtype] + k**0.5 * F32_EPS
        tolerance = 6 * eps * np.sqrt((x.astype(np.float64) ** 2) @ (widen(w).astype(np.float64).T ** 2))
        return Problem([x], [expected], [tolerance + 2 * F32_EPS * abs(expected)], [w, b], flops=2.0 * m * n * k)

    add_case("linear", f"{m}x{n}x{k} {dtype}{' bias' if bias else ''}", make, bench)


def case_linear_silu_mul(m: int, n: int, k: int, dtype: str, bias: bool, bench: bool = False) -> None:
    """`n` features: the weight has 2n rows."""

    def make(rng: Rng) -> Problem:
        x, w = normal(rng, m, k), narrow(normal(rng, 2 * n, k) / np.float32(k**0.5), dtype)
        b = normal(rng, 2 * n) if bias else None
        wide_x, wide_w = x.astype(np.float64), widen(w).astype(np.float64)
        gate, up = np.split(wide_x @ wide_w.T + (0 if b is None else b), 2, axis=1)
        eps = EPS[dtype] + k**0.5 * F32_EPS
        error = 6 * eps * np.sqrt((wide_x**2) @ (wide_w.T**2)) + 2 * F32_EPS * (1 + abs(np.hstack([gate, up])))
        gate_error, up_error = np.split(error, 2, axis=1)
        # |silu(x)| < |x| + 0.3 and its slope is below 1.1.
        tolerance = 1.1 * gate_error * (abs(up) + up_error) + abs(silu(gate)) * up_error
        return Problem(
            [x],
            [silu(gate) * up],
            [tolerance + 4 * F32_EPS * abs(silu(gate) * up)],
            [w, b],
            row_order="gate_up",
            flops=4.0 * m * n * k,
        )

    add_case("linear_silu_mul", f"{m}x{n}x{k} {dtype}{' bias' if bias else ''}", make, bench)


def case_embed(t: int, n: int, k: int, dtype: str) -> None:
    def make(rng: Rng) -> Problem:
        table = narrow(normal(rng, n, k), dtype)
        ids = rng.integers(0, n, t, dtype=np.int32)
        ids[:2] = [n - 1, 0][: len(ids)]
        return Problem([ids], [widen(table)[ids].astype(np.float64)], [0.0], [table], bytes=t * k * 8.0)

    add_case("embed", f"{t} of {n}x{k} {dtype}", make)


def case_take_rows(t: int, r: int, h: int) -> None:
    def make(rng: Rng) -> Problem:
        x, rows = normal(rng, t, h), rng.integers(0, t, r, dtype=np.int32)
        return Problem(
            [x, rows], [x[rows].astype(np.float64)], [0.0], step={"n_tokens": t, "n_rows": r}, bytes=r * h * 8.0
        )

    add_case("take_rows", f"{r} of {t}x{h}", make)


# ---- rotary embedding and the cache -----------------------------------------------------------------


def inverse_frequencies(rotary_dim: int, theta: float = 1e6) -> Array:
    return (1.0 / theta ** (np.arange(0, rotary_dim, 2) / rotary_dim)).astype(np.float32)


def case_rope_table(t: int, rotary_dim: int, scale: float) -> None:
    def make(rng: Rng) -> Problem:
        positions = rng.integers(0, 131072, t, dtype=np.int32)
        inv_freq = inverse_frequencies(rotary_dim)
        expected = rope_table(positions, inv_freq, scale)
        attrs = {"rotary_dim": rotary_dim, "rope_scale": scale}
        return Problem([positions], [expected], [F32_EPS * abs(expected)], [inv_freq], attrs)

    add_case("rope_table", f"{t}x{rotary_dim} scale {scale:g}", make)


def random_table(rng: Rng, t: int, rotary_dim: int) -> Array:
    return rope_table(rng.integers(0, 4096, t), inverse_frequencies(rotary_dim), 1.0).astype(np.float32)


def rope_tolerance(x: Array, head_dim: int) -> Array:
    # Two products that may cancel, of elements of one head.
    largest = abs(x.reshape(len(x), -1, head_dim)).max(-1, keepdims=True)
    return np.broadcast_to(3 * F32_EPS * largest, (len(x), x.shape[1] // head_dim, head_dim)).reshape(x.shape)


def case_rope(t: int, n_heads: int, head_dim: int, rotary_dim: int) -> None:
    def make(rng: Rng) -> Problem:
        x, table = normal(rng, t, n_heads * head_dim), random_table(rng, t, rotary_dim)
        attrs = {"head_dim": head_dim, "rotary_dim": rotary_dim}
        return Problem([x, table], [rope(x, table, head_dim)], [rope_tolerance(x, head_dim)], [], attrs)

    add_case("rope", f"{t}x{n_heads}x{head_dim} turns {rotary_dim}", make)


def empty_cache(n_layers: int, n_blocks: int, n_kv_heads: int, block_size: int, head_dim: int, dtype: str) -> Array:
    """Return a cache of one recognisable pattern, so that stray writes show."""
    return narrow(np.full((n_layers, n_blocks, n_kv_heads, block_size, head_dim), -7.25, np.float32), dtype)


def write_cache(cache: Array, x: Array, layer: int, slots: Array) -> Array:
    """Return the cache with rows x[T, n_kv_heads, head_dim] at their slots, rounded unless it is float64."""
    cache = cache.copy()
    dtype = {"float32": "f32", "float16": "f16", "uint16": "bf16"}.get(cache.dtype.name)
    for row, slot in zip(x, slots, strict=True):
        if slot >= 0:
            cache[layer, slot // cache.shape[3], :, slot % cache.shape[3]] = narrow(row, dtype) if dtype else row
    return cache


def random_slots(rng: Rng, t: int, n_slots: int) -> Array:
    slots = rng.permutation(n_slots)[:t].astype(np.int32)
    slots[1::5] = -1
    return slots


def case_kv_write(t: int, n_kv_heads: int, head_dim: int, dtype: str, block_size: int = 16) -> None:
    def make(rng: Rng) -> Problem:
        k, v = (100 * normal(rng, t, n_kv_heads * head_dim) for _ in range(2))
        # to float16: overflow, subnormals, ties; to all: signed zeros and infinities
        edges = [0.0, -0.0, 7e4, -65520.0, 65519.0, 1e-7, 3e-8, 1 + 2.0**-11, 1 + 3 * 2.0**-11, np.inf, -np.inf, 1e-40]
        v.flat[: len(edges)] = edges
        n_blocks = t // block_size + 3
        slots = random_slots(rng, t, n_blocks * block_size)
        last = n_blocks * block_size - 1
        slots[slots == last] = -1  # two tokens in one slot would race
        slots[0] = last
        cache = empty_cache(2, n_blocks, n_kv_heads, block_size, head_dim, dtype)
        shape = (t, n_kv_heads, head_dim)
        with np.errstate(over="ignore"):
            expected = (
                write_cache(cache, k.reshape(shape), 1, slots),
                write_cache(cache, v.reshape(shape), 1, slots),
            )
        attrs = {"layer": 1, "n_kv_heads": n_kv_heads, "head_dim": head_dim}
        return Problem(
            [k, v, slots], [], [], [], attrs, {"n_tokens": t}, (cache, cache.copy()), expected, bytes=12.0 * k.size
        )

    add_case("kv_write", f"{t}x{n_kv_heads}x{head_dim} {dtype} blocks of {block_size}", make)


def random_paged(
    rng: Rng, lengths: list[int], new: list[int], n_kv_heads: int, head_dim: int, dtype: str, block_size: int = 16
) -> tuple[tuple[Array, Array], dict[str, Any]]:
    """Make a cache of 2 layers with shuffled blocks, NaN wherever no key of a sequence is, and its step.

    lengths: keys of each sequence once the step's `new` tokens are in.
    """
    n_used = sum(-(-n // block_size) for n in lengths)
    order = rng.permutation(n_used + 2).tolist()
    shape = (2, n_used + 2, n_kv_heads, block_size, head_dim)
    cache = tuple(narrow(np.full(shape, np.nan, np.float32), dtype) for _ in range(2))
    tables = []
    for n in lengths:
        n_blocks = -(-n // block_size)
        table = [order.pop() for _ in range(n_blocks)]
        tables.append(table)
        for c in cache:
            keys = narrow(normal(rng, 2, n_blocks, n_kv_heads, block_size, head_dim), dtype)
            last = n - (n_blocks - 1) * block_size
            c[:, table[:-1]] = keys[:, :-1]
            c[:, table[-1], :, :last] = keys[:, -1, :, :last]
    step = {
        "query_start": np.cumsum([0, *new]).tolist(),
        "positions": np.concatenate([np.arange(n - m, n) for n, m in zip(lengths, new, strict=True)]).tolist(),
        "tables": tables,
    }
    return (cache[0], cache[1]), step


def case_linear_rope_kv_write(
    t: int, n_heads: int, n_kv_heads: int, head_dim: int, rotary_dim: int, k: int, dtype: str, bias: bool
) -> None:
    """Weights, and the cache, are of type `dtype`."""

    def make(rng: Rng) -> Problem:
        n = (n_heads + 2 * n_kv_heads) * head_dim
        x, w = normal(rng, t, k), narrow(normal(rng, n, k) / np.float32(k**0.5), dtype)
        b = normal(rng, n) if bias else None
        wide_x, wide_w = x.astype(np.float64), widen(w).astype(np.float64)
        qkv = wide_x @ wide_w.T + (0 if b is None else b)
        q, keys, values = np.split(qkv, [n_heads * head_dim, (n_heads + n_kv_heads) * head_dim], axis=1)
        table, slots = random_table(rng, t, rotary_dim), random_slots(rng, t, (t // 16 + 2) * 16)
        cache = empty_cache(2, t // 16 + 2, n_kv_heads, 16, head_dim, dtype)
        shape, before = (t, n_kv_heads, head_dim), widen(cache).astype(np.float64)
        error = 6 * (EPS[dtype] + k**0.5 * F32_EPS) * np.sqrt((wide_x**2) @ (wide_w.T**2)).max()
        attrs = {
            "layer": 1,
            "n_heads": n_heads,
            "n_kv_heads": n_kv_heads,
            "head_dim": head_dim,
            "rotary_dim": rotary_dim,
        }
        return Problem(
            [x, table, slots],
            [rope(q, table, head_dim)],
            [1.5 * error + 16 * F32_EPS * (1 + abs(q).max())],
            [w, b],
            attrs,
            cache=(cache, cache.copy()),
            expected_cache=(
                write_cache(before, rope(keys, table, head_dim).reshape(shape), 1, slots),
                write_cache(before, values.reshape(shape), 1, slots),
            ),
            cache_tolerance=EPS[dtype] + 16 * F32_EPS + 1.5 * error,
            scratch=[(t, n)],
        )

    label = f"{t}x{n_heads}/{n_kv_heads}x{head_dim}({rotary_dim})x{k} {dtype}{' bias' if bias else ''}"
    add_case("linear_rope_kv_write", label, make)


def case_attention(
    label: str,
    lengths: list[int],
    new: list[int],
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    dtype: str,
    block_size: int = 16,
    bench: bool = False,
) -> None:
    def make(rng: Rng) -> Problem:
        (k, v), step = random_paged(rng, lengths, new, n_kv_heads, head_dim, dtype, block_size)
        q = normal(rng, sum(new), n_heads * head_dim)
        scale = head_dim**-0.5
        attrs = {
            "layer": 1,
            "n_heads": n_heads,
            "n_kv_heads": n_kv_heads,
            "head_dim": head_dim,
            "softmax_scale": scale,
        }
        expected = attention(q, k, v, 1, step, n_heads, scale)
        n_seen = sum(p + 1 for p in step["positions"])
        n_bytes = 2.0 * n_kv_heads * head_dim * k.itemsize * sum(lengths) + 2.0 * q.nbytes
        return Problem(
            [q], [expected], [3e-6], [], attrs, step, (k, v), None, 4.0 * n_heads * head_dim * n_seen, n_bytes
        )

    shape = f"{n_heads}/{n_kv_heads}x{head_dim} {dtype}" + (f" blocks of {block_size}" if block_size != 16 else "")
    add_case("attention", f"{label} {shape}", make, bench)


def case_rope_kv_write(
    t: int,
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    rotary_dim: int,
    norm: bool,
    dtype: str,
    bench: bool = False,
) -> None:
    def make(rng: Rng) -> Problem:
        q, k, v = (normal(rng, t, n * head_dim) for n in (n_heads, n_kv_heads, n_kv_heads))
        table = random_table(rng, t, rotary_dim)
        weights: list[Array | None] = [normal(rng, head_dim), normal(rng, head_dim)] if norm else [None, None]
        turned, turned_k = (
            x.astype(np.float64) if w is None else rms_norm(x.reshape(t, -1, head_dim), w, 1e-6).reshape(x.shape)
            for x, w in zip((q, k), weights, strict=True)
        )
        slots = random_slots(rng, t, (t // 16 + 2) * 16)
        cache = empty_cache(2, t // 16 + 2, n_kv_heads, 16, head_dim, dtype)
        attrs = {
            "eps": 1e-6,
            "layer": 1,
            "n_heads": n_heads,
            "n_kv_heads": n_kv_heads,
            "head_dim": head_dim,
            "rotary_dim": rotary_dim,
        }
        tolerance = [3 * rope_tolerance(turned, head_dim)]
        expected = [rope(turned, table, head_dim)]
        shape = (t, n_kv_heads, head_dim)
        before = widen(cache).astype(np.float64)
        after = (
            write_cache(before, rope(turned_k, table, head_dim).reshape(shape), 1, slots),
            write_cache(before, v.reshape(shape).astype(np.float64), 1, slots),
        )
        return Problem(
            [q, k, v, table, slots],
            expected,
            tolerance,
            weights,
            attrs,
            {},
            (cache, cache.copy()),
            after,
            EPS[dtype] + 16 * F32_EPS,
        )

    name = f"{t}x{n_heads}/{n_kv_heads}x{head_dim} turns {rotary_dim} {dtype}{' norm' if norm else ''}"
    add_case("rope_kv_write", name, make, bench)


# ---- the list ---------------------------------------------------------------------------------------

for T, H in ((1, 1), (3, 7), (2, 64), (5, 70), (1, 18944), (300, 897)):
    case_binary("add", lambda a, b: a + b, T, H)
    case_binary("mul", lambda a, b: a * b, T, H)
    case_silu(T, H)
for T in (1, 64, 512):
    case_rope_kv_write(T, 14, 2, 64, 64, False, "bf16", bench=True)
    case_rms_norm(T, 896, 1.0, bench=True)
    case_add_rms_norm(T, 896, bench=True)
for T, H, SCALE in ((1, 8, 1.0), (3, 70, 1.0), (2, 897, 100.0), (301, 896, 1e-3), (5, 4096, 1.0)):
    case_rms_norm(T, H, SCALE)
for T, H in ((1, 8), (3, 70), (301, 896)):
    case_add_rms_norm(T, H)
for T, N, D in ((1, 1, 8), (3, 4, 42), (5, 16, 64), (40, 16, 128)):
    case_head_norm(T, N, D)
for DTYPE in ("f32", "f16", "bf16"):
    for M, N, K, BIAS in (
        (1, 1, 1, True),
        (1, 33, 31, False),
        (3, 70, 129, True),
        (17, 100, 64, True),
        (70, 257, 300, 1),
    ):
        case_linear(M, N, K, DTYPE, bool(BIAS))
    for M, N, K, BIAS in (
        (1, 8, 8, True),
        (1, 40, 72, False),
        (5, 64, 64, True),
        (17, 104, 64, False),
        (70, 136, 304, True),
    ):
        case_linear_silu_mul(M, N, K, DTYPE, BIAS)
    case_embed(1, 5, 3, DTYPE)
    case_embed(40, 77, 130, DTYPE)
for M in (1, 4, 16, 64, 512):
    case_linear(M, 4864, 896, "bf16", False, bench=True)
    case_linear_silu_mul(M, 4864, 896, "bf16", False, bench=True)
for M in (1, 512):
    case_linear(M, 896, 4864, "bf16", False, bench=True)
    case_linear(M, 4864, 896, "f32", False, bench=True)
case_take_rows(1, 1, 8)
case_take_rows(300, 40, 897)
for T, D, SCALE in ((1, 8, 1.0), (7, 64, 1.0), (300, 128, 1.25)):
    case_rope_table(T, D, SCALE)
for T, N, D, R in ((1, 1, 8, 8), (3, 2, 40, 40), (5, 3, 96, 24), (60, 14, 64, 64), (40, 8, 128, 128)):
    case_rope(T, N, D, R)
for DTYPE in ("f32", "f16", "bf16"):
    case_kv_write(1, 1, 64, DTYPE)
    case_kv_write(23, 2, 40, DTYPE, block_size=8)
    case_kv_write(200, 2, 64, DTYPE)
    case_rope_kv_write(1, 4, 2, 64, 64, False, DTYPE)
    case_rope_kv_write(23, 6, 3, 40, 16, True, DTYPE)
    case_rope_kv_write(5, 3, 1, 42, 10, True, DTYPE)
    case_rope_kv_write(100, 14, 2, 64, 64, True, DTYPE)
    case_linear_rope_kv_write(1, 2, 1, 64, 64, 512, DTYPE, True)
    case_linear_rope_kv_write(21, 6, 2, 128, 128, 512, DTYPE, False)
    case_linear_rope_kv_write(5, 3, 3, 40, 16, 64, DTYPE, True)
    case_linear_rope_kv_write(70, 4, 2, 32, 32, 520, DTYPE, True)
    case_linear_rope_kv_write(100, 6, 2, 128, 128, 512, DTYPE, True)
    case_linear_rope_kv_write(265, 3, 1, 64, 64, 320, DTYPE, False)
    case_attention("mixed", [1, 70, 33, 200, 130], [1, 70, 1, 20, 1], 8, 2, 64, DTYPE)
for DTYPE in ("f32", "bf16"):
    for HQ, HKV, D in ((14, 2, 64), (28, 4, 128)):
        case_attention("prefill 512", [512], [512], HQ, HKV, D, DTYPE, bench=True)
        case_attention("decode 1 at 4096", [4096], [1], HQ, HKV, D, DTYPE, bench=True)
        case_attention("decode 16 at 1024", [1024] * 16, [1] * 16, HQ, HKV, D, DTYPE, bench=True)
case_attention("prefill 2048", [2048], [2048], 14, 2, 64, "bf16", bench=True)
