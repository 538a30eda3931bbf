"""Every op of the CPU against its float64 reference, on every instruction set of this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cases import CASES, Case, Problem
from op_harness import OTHER_SETS, Output, first_run_only, run_again, view_of
from rvllm._native import opcall, operands
from rvllm._native.ops import op_table

CHECKED = [c for c in CASES if not c.bench]  # bench/ops.py checks its own


@pytest.fixture(scope="module")
def cpu() -> opcall.Cpu:
    return opcall.Cpu(2)


class Run:
    """One run of a problem: its outputs and cache."""

    def __init__(self, cpu: opcall.Cpu, op: str, p: Problem, gap: int = 0) -> None:
        inputs = [view_of(a, gap) if gap and a is not None and a.ndim == 2 else a for a in p.inputs]
        outputs = [Output(shape, gap) for shape in [*(e.shape for e in p.expected), *p.scratch]]
        weights = p.packed_weights(cpu)
        self.cache = None if p.cache is None else operands.KvCache(p.cache[0].copy(), p.cache[1].copy())
        step = operands.Step(**p.step) if p.step else None
        self.kernel = cpu.run(op, inputs, weights, [o.array for o in outputs], p.attrs, step, self.cache)
        for o in outputs:
            o.check_guards()
        self.outputs = [np.ascontiguousarray(o.array) for o in outputs[: len(p.expected)]]

    def bits(self) -> list[bytes]:
        arrays = self.outputs + ([] if self.cache is None else [self.cache.k, self.cache.v])
        return [a.tobytes() for a in arrays]


def check(run: Run, p: Problem) -> None:
    p.check(run.outputs, None if run.cache is None else (run.cache.k, run.cache.v))


def test_list_covers_every_op() -> None:
    assert {c.op for c in CASES} == set(op_table())


@pytest.mark.parametrize("gap", [0, 5], ids=["whole", "view"])
@pytest.mark.parametrize("case", CHECKED, ids=str)
def test_op_against_float64(cpu: opcall.Cpu, case: Case, gap: int) -> None:
    p = case.problem()
    check(Run(cpu, case.op, p, gap), p)


@pytest.mark.parametrize("case", CHECKED, ids=str)
def test_threads_do_not_change_a_bit(cpu: opcall.Cpu, case: Case) -> None:
    p = case.problem()
    assert Run(cpu, case.op, p).bits() == Run(opcall.Cpu(1), case.op, p).bits() == Run(opcall.Cpu(5), case.op, p).bits()


BY_ROW = [c for c in CHECKED if c.op not in ("attention", "kv_write", "rope_kv_write", "take_rows")]


@pytest.mark.parametrize("case", BY_ROW, ids=str)
def test_batch_does_not_change_a_bit(cpu: opcall.Cpu, case: Case) -> None:
    p = case.problem()
    whole = Run(cpu, case.op, p)
    n = len(p.expected[0])
    for part in (slice(0, 1), slice(n - 1, n), slice(n // 3, n // 3 + (n + 1) // 2)):
        some = replace(p, inputs=[a[part] for a in p.inputs], expected=[e[part] for e in p.expected], tolerance=[])
        for got, expected in zip(Run(cpu, case.op, some).outputs, whole.outputs, strict=True):
            assert got.tobytes() == expected[part].tobytes()


@pytest.mark.parametrize("op", ["add", "mul", "silu"])
def test_in_place(cpu: opcall.Cpu, op: str) -> None:
    for case in (c for c in CHECKED if c.op == op):
        p = case.problem()
        y = p.inputs[0].copy()
        cpu.run(op, [y, *p.inputs[1:]], [], [y])
        assert y.tobytes() == Run(cpu, op, p).outputs[0].tobytes()


def test_sum_of_add_rms_norm_may_replace_the_residual(cpu: opcall.Cpu) -> None:
    for case in (c for c in CHECKED if c.op == "add_rms_norm"):
        p = case.problem()
        y, total = np.empty_like(p.inputs[0]), p.inputs[1].copy()
        cpu.run("add_rms_norm", [p.inputs[0], total], [cpu.weight(p.weights[0])], [y, total], p.attrs)
        assert [y.tobytes(), total.tobytes()] == Run(cpu, "add_rms_norm", p).bits()


def test_nan_in_nan_out(cpu: opcall.Cpu) -> None:
    x = np.ones((2, 70), np.float32)
    x[1, 69] = np.nan
    for op, n_inputs in (("silu", 1), ("add", 2), ("mul", 2)):
        y = np.zeros_like(x)
        cpu.run(op, [x] * n_inputs, [], [y])
        assert np.isnan(y[1, 69]) and np.isnan(y).sum() == 1, op
    cpu.run("rms_norm", [x], [cpu.weight(np.ones(70, np.float32))], [y], {"eps": 1e-6})
    assert np.isnan(y[1]).all() and not np.isnan(y[0]).any()


# ---- fused == composition, to the bit ---------------------------------------------------------------


def test_add_rms_norm_is_add_then_rms_norm(cpu: opcall.Cpu) -> None:
    for case in (c for c in CHECKED if c.op == "add_rms_norm"):
        p = case.problem()
        total, y = np.empty_like(p.inputs[0]), np.empty_like(p.inputs[0])
        cpu.run("add", p.inputs, [], [total])
        cpu.run("rms_norm", [total], [cpu.weight(p.weights[0])], [y], p.attrs)
        assert [y.tobytes(), total.tobytes()] == Run(cpu, "add_rms_norm", p).bits()


def test_linear_silu_mul_is_its_composition(cpu: opcall.Cpu) -> None:
    for case in (c for c in CHECKED if c.op == "linear_silu_mul"):
        p = case.problem()
        x, w, b = p.inputs[0], *p.weights
        half = len(w) // 2
        gate, up = (np.empty((len(x), half), np.float32) for _ in range(2))
        for y, part in ((gate, slice(half)), (up, slice(half, None))):
            cpu.run("linear", [x], [cpu.weight(w[part]), None if b is None else cpu.weight(b[part])], [y])
        cpu.run("silu", [gate], [], [gate])
        cpu.run("mul", [gate, up], [], [gate])
        assert [gate.tobytes()] == Run(cpu, case.op, p).bits(), case


@pytest.mark.parametrize("case", [c for c in CHECKED if c.op == "linear_rope_kv_write"], ids=str)
def test_linear_rope_kv_write_is_its_composition(cpu: opcall.Cpu, case: Case) -> None:
    p = case.problem()
    x, table, slots = p.inputs
    qkv, y = (np.empty((len(x), n), np.float32) for n in (len(p.weights[0]), p.expected[0].shape[1]))
    cpu.run("linear", [x], p.packed_weights(cpu), [qkv])
    q, k, v = np.split(qkv, [y.shape[1], (y.shape[1] + qkv.shape[1]) // 2], axis=1)
    cache = operands.KvCache(p.cache[0].copy(), p.cache[1].copy())
    cpu.run("rope_kv_write", [q, k, v, table, slots], [], [y], p.attrs, None, cache)
    assert [y.tobytes(), cache.k.tobytes(), cache.v.tobytes()] == Run(cpu, case.op, p).bits()


@pytest.mark.parametrize("case", [c for c in CHECKED if c.op == "rope_kv_write"], ids=str)
def test_rope_kv_write_is_its_composition(cpu: opcall.Cpu, case: Case) -> None:
    p = case.problem()
    q, k, v, table, slots = p.inputs
    turned = []
    for x, w in zip((q, k), p.weights, strict=True):
        y = x.copy()
        if w is not None:
            cpu.run("head_norm", [x], [cpu.weight(w)], [y], {k: p.attrs[k] for k in ("eps", "head_dim")})
        out = np.empty_like(y)
        cpu.run("rope", [y, table], [], [out], {k: p.attrs[k] for k in ("head_dim", "rotary_dim")})
        turned.append(out)
    cache = operands.KvCache(p.cache[0].copy(), p.cache[1].copy())
    attrs = {k: p.attrs[k] for k in ("layer", "n_kv_heads", "head_dim")}
    cpu.run("kv_write", [turned[1], v, slots], [], [], attrs, operands.Step(len(q)), cache)
    assert [turned[0].tobytes(), cache.k.tobytes(), cache.v.tobytes()] == Run(cpu, "rope_kv_write", p).bits()


# ---- which kernel, which refusals -------------------------------------------------------------------


def test_kernel_names_tell_the_instruction_set(cpu: opcall.Cpu) -> None:
    set_ = opcall.isa_in_use()
    x = np.ones((1, 8), np.float32)
    assert cpu.run("silu", [x], [], [x.copy()]) == f"silu.f32.{set_.removesuffix('_bf16')}"


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("attention", {"n_heads": 2, "n_kv_heads": 1, "head_dim": 20}),
        ("attention", {"n_heads": 3, "n_kv_heads": 2, "head_dim": 64}),
        ("rope", {"head_dim": 64, "rotary_dim": 63}),
        ("rope", {"head_dim": 64, "rotary_dim": 128}),
    ],
)
def test_what_has_no_kernel_is_refused(cpu: opcall.Cpu, op: str, attrs: dict[str, Any]) -> None:
    x = np.ones((1, 128), np.float32)
    with pytest.raises(LookupError, match=op):
        cpu.bind(op, [x], [], [x.copy()], attrs)


def test_int_activations_have_no_kernel(cpu: opcall.Cpu) -> None:
    x = np.ones((1, 128), np.int32)
    for op in ("add", "mul"):
        with pytest.raises(LookupError, match=op):
            cpu.bind(op, [x, x], [], [x.copy()])


# ---- again on the other sets ------------------------------------------------------------------------


@first_run_only
@pytest.mark.parametrize("set_", OTHER_SETS)
def test_other_instruction_set(set_: str) -> None:
    run_again(set_, __file__)
