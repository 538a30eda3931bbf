"""Problems of tests/cases.py in 16 bits: the CPU op in float32 on the rounded operands is the reference."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cases import CASES, EPS, Case, Problem
from op_harness import view_of
from op_reference import Array, narrow, widen
from rvllm._native import opcall, operands
from rvllm._native.device import Device
from rvllm._native.ops import op_table
from rvllm.kernel_table import cublas_library

GAP = 8  # columns: views of a plan start on multiples of 16 bytes
LONG_NAMES = {"bf16": "bfloat16", "f16": "float16"}
FLOAT32 = {"table"}  # operands that stay float32: the rope table
DTYPES = ("bf16", "f16")
HEAD_DIMS = (64, 80, 96, 128, 256)
# Cases come per type of weights or cache; the float32 ones stand for all.
CHECKED = [c for c in CASES if not c.bench and not any(t in c.label.split() for t in DTYPES)]
# Relative to one rounding of the output: what float32 sums in another order and rounded weights add.
SLACK = {"linear": 1.0, "linear_silu_mul": 2.0, "linear_rope_kv_write": 1.0, "add_rms_norm": 1.5}
FLOOR = {
    "linear": 2e-3,
    "linear_silu_mul": 2e-3,
    "rope": 1e-6,
    "rope_kv_write": 1e-5,
    "silu": 1e-7,
}


@functools.cache
def has_bf16() -> bool:
    """Return whether the device computes in bfloat16: from sm_80 on."""
    return Device("cuda").kernel("silu", "bf16", "bf16", {}) is not None


def half() -> str:
    """Return the type of tests that run in one: bfloat16 where the device has it."""
    return "bf16" if has_bf16() else "f16"


def cublas_options(gemm_strategy: str) -> dict[str, str]:
    """Return the options of a device for a strategy that needs cuBLASLt; skips where the library is not installed."""
    options = {"gemm_strategy": gemm_strategy, "cublas_library": cublas_library()}
    try:
        Device("cuda", **options)
    except ValueError as e:
        if "cuBLASLt is not here" not in str(e):
            raise
        pytest.skip(str(e))
    return options


def rounded(p: Problem, op: str, dtype: str) -> Problem:
    """Return the problem with 16-bit activations, matrices and cache; vectors and angles stay float32."""
    names = op_table()[op].inputs

    def input_of(name: str, a: Array | None) -> Array | None:
        return a if a is None or a.dtype != np.float32 or name in FLOAT32 else narrow(a, dtype)

    inputs = [input_of(name, a) for name, a in zip(names, p.inputs, strict=False)]
    weights = [w if w is None or w.ndim == 1 else narrow(widen(w), dtype) for w in p.weights]
    cache = None if p.cache is None else tuple(narrow(widen(c), dtype) for c in p.cache)
    return replace(p, inputs=inputs, weights=weights, cache=cache)


def run(ops: opcall.Ops, op: str, p: Problem, gap: int = 0, y_dtype: str | None = None) -> tuple[list[Array], Any, str]:
    """Run a problem; return its outputs as float32, its cache and the kernel. y_dtype: of outputs, angles apart."""
    outputs = []
    for shape in [*(e.shape for e in p.expected), *p.scratch]:
        y = np.full(shape, np.nan, np.float32)
        outputs.append(view_of(narrow(y, y_dtype) if y_dtype and op != "rope_table" else y, gap))
    inputs = [view_of(a, gap) if gap and a is not None and a.ndim == 2 else a for a in p.inputs]
    weights = p.packed_weights(ops)
    cache = None if p.cache is None else operands.KvCache(p.cache[0].copy(), p.cache[1].copy())
    step = operands.Step(**p.step) if p.step else None
    kernel = ops.run(op, inputs, weights, outputs, p.attrs, step, cache)
    return [widen(np.ascontiguousarray(y)) for y in outputs[: len(p.expected)]], cache, kernel


def reference(cpu: opcall.Cpu, op: str, p: Problem) -> tuple[list[Array], Any]:
    """Run a rounded problem on the CPU, in float32."""
    wide = replace(p, inputs=[a if a is None or a.dtype == np.int32 else widen(a) for a in p.inputs])
    outputs, cache, _ = run(cpu, op, wide)
    return outputs, cache


def assert_close(got: Array, want: Array, dtype: str, slack: float, floor: float = 0.0) -> None:
    """Allow one rounding to `dtype` and `slack` more of it, and `floor`, absolute."""
    eps = 1e-6 if dtype == "f32" else EPS[dtype]
    with np.errstate(invalid="ignore", over="ignore"):
        limit = 65504.0 if dtype == "f16" else np.inf
        overflow = (
            (abs(want) > limit * 0.999) & (np.isinf(got) | (abs(got) > limit * 0.99)) & (np.sign(got) == np.sign(want))
        )
        good = (
            (got == want)
            | (np.isnan(got) & np.isnan(want))
            | overflow
            | (abs(got - want) <= (1 + slack) * eps * abs(want) + floor)
        )
    assert good.all(), f"{(~good).sum()} of {good.size} wrong, the first: {got[~good][0]} for {want[~good][0]}"


def assert_attention(got: Array, want: Array, dtype: str) -> None:
    """The weights of the values are rounded to 16 bits, so an element may be off by a rounding of any of them."""
    eps = EPS[dtype]
    assert np.linalg.norm(got - want) < eps * np.linalg.norm(want)
    assert abs(got - want).max() < 4 * eps


def floor_of(op: str, dtype: str, default: float) -> float:
    """Absolute. Where a rounded product is turned, an element gets the rounding of its partner, which may be larger."""
    return 4 * EPS[dtype] if op == "linear_rope_kv_write" else FLOOR.get(op, default)


def has_kernel(case: Case) -> bool:
    p = case.problem()
    if case.op.startswith("linear"):
        return p.inputs[0].shape[1] % 8 == 0
    return case.op != "attention" or p.attrs["head_dim"] in HEAD_DIMS


def check_against_cpu(
    cuda: opcall.Ops, cpu: opcall.Ops, case: Case, gap: int, dtype: str, rounded_products: float = 0.0
) -> None:
    """Run a case on both. rounded_products: what an element may differ besides, in roundings of 1 + its value."""
    p = rounded(case.problem(), case.op, dtype)
    got, cache, _ = run(cuda, case.op, p, gap, dtype)
    want, want_cache = reference(cpu, case.op, p)
    y_dtype = "f32" if case.op == "rope_table" else dtype
    slack = SLACK.get(case.op, 0.01) + rounded_products
    extra = rounded_products * EPS[dtype]
    for g, w in zip(got, want, strict=True):
        if case.op == "attention":
            assert_attention(g, w, dtype)
        else:
            assert_close(g, w, y_dtype, slack, extra + floor_of(case.op, dtype, 1e-9 if dtype == "bf16" else 1e-7))
    if cache is not None and case.op != "attention":
        for side in ("k", "v"):
            written, wanted = widen(getattr(cache, side)), widen(getattr(want_cache, side))
            assert_close(written, wanted, dtype, 1.01 + rounded_products, extra + floor_of(case.op, dtype, 1e-6))
