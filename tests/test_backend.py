"""The CPU backend around its kernels: memory, weights, and the parts of a step before its ops."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from op_reference import narrow, normal, widen
from rvllm._native import opcall, operands


@pytest.fixture(scope="module")
def cpu() -> opcall.Cpu:
    return opcall.Cpu(1)


def test_memory_is_zeroed_and_aligned(cpu: opcall.Cpu) -> None:
    for n_bytes, align in ((1, 4096), (100_000, 4096), (5 << 20, 2 << 20)):
        for _ in range(2):
            address, zero = cpu.alloc_and_free(n_bytes)
            assert address % align == 0 and zero


def test_memory_that_is_not_there_is_refused_with_both_sizes(cpu: opcall.Cpu) -> None:
    total, available = cpu.memory
    assert 0 < available <= total
    with pytest.raises(MemoryError, match=r"cannot allocate [\d.]+ MB of host memory: [\d.]+ MB are available"):
        cpu.alloc_and_free(total + (1 << 30))
    with pytest.raises(MemoryError):
        cpu.alloc_and_free(2**64 - 4096)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_weights_survive_packing(cpu: opcall.Cpu, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (33, 7), (100, 130)):
        w = narrow(normal(rng, *shape), dtype)
        packed = cpu.weight(w)
        assert packed.nbytes >= w.nbytes
        assert packed.unpack().tobytes() == widen(w).tobytes()
        assert packed.unpack(shape[0] // 2, 1).tobytes() == widen(w)[shape[0] // 2].tobytes()
        with pytest.raises(ValueError, match="rows"):
            packed.unpack(shape[0], 1)


def test_step_copies_blocks_of_all_layers_first(cpu: opcall.Cpu) -> None:
    rng = np.random.default_rng(0)
    for dtype in ("f32", "bf16"):
        k, v = (narrow(normal(rng, 3, 5, 2, 16, 8), dtype) for _ in range(2))
        cache = operands.KvCache(k.copy(), v.copy())
        # the second copy reads what the first wrote
        ticket = cpu.submit([], operands.Step(copies=[(0, 4, 1), (0, 1, 3)], step_id=77), cache)
        assert ticket == 77
        for before, after in ((k, cache.k), (v, cache.v)):
            assert (after[:, [0, 1, 2, 3, 4]] == before[:, [0, 4, 2, 4, 4]]).all()


def test_step_copies_blocks_between_the_tiers(cpu: opcall.Cpu) -> None:
    rng = np.random.default_rng(0)
    for dtype in ("f32", "f16"):
        k, v = (narrow(normal(rng, 3, 5, 2, 16, 8), dtype) for _ in range(2))
        host = narrow(normal(rng, 2, 2, 3, 2, 16, 8), dtype)
        cache = operands.KvCache(k.copy(), v.copy(), host.copy())
        # Block 4 goes to block 1 of the second tier, and block 0 of that one takes its place.
        cpu.submit([], operands.Step(copies=[(0, 4, 6), (0, 5, 4), (0, 4, 2)]), cache)
        for part, (before, after) in enumerate(((k, cache.k), (v, cache.v))):
            assert (after[:, [0, 1, 3]] == before[:, [0, 1, 3]]).all()
            assert (after[:, 4] == host[0, part]).all() and (after[:, 2] == host[0, part]).all()
            assert (cache.host[1, part] == before[:, 4]).all() and (cache.host[0] == host[0]).all()


def test_step_takes_tokens_from_the_last_draw(cpu: opcall.Cpu) -> None:
    step = operands.Step(token_ids=[5, -1, 7, -3], n_tokens=4, last_token=[11, 12, 13])
    ids = step.arrays["token_ids"]
    table, y = np.arange(20, dtype=np.float32)[:, None].repeat(3, 1), np.empty((4, 3), np.float32)
    call = cpu.bind("embed", [ids], [cpu.weight(table)], [y], step=step)
    cpu.submit([call], step)
    assert ids.tolist() == [5, 11, 7, 13]
    assert y[:, 0].tolist() == [5, 11, 7, 13]


def test_ops_of_a_step_run_in_order(cpu: opcall.Cpu) -> None:
    x, y, z = (np.full((2, 8), i, np.float32) for i in (1, 2, 3))
    step = operands.Step(n_tokens=2)
    calls = [
        cpu.bind("add", [x, x], [], [y], step=step),  # y = 2
        cpu.bind("mul", [y, y], [], [z], step=step),  # z = 4
        cpu.bind("add", [z, y], [], [z], step=step),  # z = 6
    ]
    cpu.submit(calls, step)
    assert (z == 6).all()


def test_ops_and_weights_may_be_collected_in_any_order() -> None:
    """What the collector of cycles takes apart still finds the backend that its memory belongs to."""
    for _ in range(20):
        ops = opcall.Cpu(1)
        x, y = np.ones((2, 8), np.float32), np.empty((2, 8), np.float32)
        cycle: list[object] = [ops, ops.weight(np.ones((8, 8), np.float32)), ops.bind("silu", [x], [], [y])]
        cycle.append(cycle)
        del ops, cycle
        gc.collect()
