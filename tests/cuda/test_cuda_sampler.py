"""The device's sampler against the CPU's: equal logits, equal draws, whatever the options and the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from op_harness import skip_without_gpu
from rvllm._native.device import Device
from rvllm._native.sampler import Sampler

device_sampler = pytest.importorskip("rvllm._native.device_sampler")
Rows = np.ndarray
MAX_TOP = 20


@pytest.fixture(scope="module")
def device() -> Device:
    try:
        return Device("cuda")
    except ValueError as e:
        skip_without_gpu(e)


class Pair:
    """The same sequences and rows on both samplers; step() compares and returns what they agree on."""

    def __init__(self, device: Device, n: int, vocab: int, stride: int = 0) -> None:
        self.on_host = Sampler(n, vocab, MAX_TOP, 1)
        self.on_device = device_sampler.DeviceSampler(device, n, vocab, MAX_TOP, n, stride=stride)

    def add(self, slot: int, *args: Any, **params: Any) -> None:
        self.on_host.add(slot, *args, **params)
        self.on_device.add(slot, *args, **params)

    def step(self, logits: Rows, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        want, got = self.on_host.step(logits, rows), self.on_device.step(logits, rows)
        for row, w, g in zip(rows, want, got, strict=True):
            assert_same(g, w, row)
        return want


def assert_same(got: dict[str, Any], want: dict[str, Any], about: Any) -> None:
    for name in ("token", "rank", "failed", "last_token"):
        if name == "last_token" and "target" in about:
            continue
        assert got[name] == want[name], f"{name} {got[name]} for {want[name]}: {about}"
    assert got["logprob"] == pytest.approx(want["logprob"], rel=1e-6, abs=1e-6), about
    assert [t for t, _ in got["top"]] == [t for t, _ in want["top"]], about
    assert [v for _, v in got["top"]] == pytest.approx([v for _, v in want["top"]], rel=1e-6, abs=1e-6), about


def make_row(rng: np.random.Generator, vocab: int) -> Rows:
    """A row of one of many shapes: normal, flat, peaked, tied, huge, masked, with infinities or a NaN."""
    kind = rng.integers(14)
    x = rng.standard_normal(vocab).astype(np.float32)
    if kind == 1:
        x *= np.float32(rng.choice([3, 10, 100, 1e-3]))
    elif kind == 2:
        x = np.round(x * 2) / 2
    elif kind == 3:
        x[:] = x[0]
    elif kind == 4:
        x = np.exp(x * 4)
    elif kind == 5:
        x *= np.float32(rng.choice([1e30, 1e-30, 1e-42, 30000]))
    elif kind == 6:
        x[rng.random(vocab) < 0.9] = -np.inf
    elif kind == 7:
        x[rng.integers(vocab, size=min(3, vocab))] = np.inf
    elif kind == 8:
        x[rng.integers(vocab)] = np.nan
    elif kind == 9:
        x[:] = -np.inf
        if rng.random() < 0.5:
            x[rng.integers(vocab)] = 1
    elif kind == 10:
        x = np.sort(x)[:: rng.choice([1, -1])].copy()
    elif kind == 11:
        x = rng.uniform(-10, 10, vocab).astype(np.float32)
    elif kind == 12:
        x[rng.integers(vocab)] += np.float32(rng.choice([5, 20, 200, 1e20, -1e20]))
    elif kind == 13:
        x = np.round(x) * 0 + np.float32(rng.choice([0.0, -0.0])) * (x > 0)
    return np.ascontiguousarray(x, np.float32)


def make_params(rng: np.random.Generator, vocab: int) -> dict[str, Any]:
    def some(of: Any, p: float = 0.5) -> bool:
        return bool(rng.random() < p)

    p: dict[str, Any] = {"seed": int(rng.integers(2**63)), "choice": int(rng.integers(4)), "max_tokens": 64}
    p["temperature"] = float(rng.choice([0, 1, 1, 0.8, 0.3, 2, 30, 1e-4, 1e-6, 1000]))
    if some("top_k"):
        p["top_k"] = int(rng.choice([1, 2, 20, 50, 64, 65, 300, 2047, 2048, 2049, 5000, 100000]))
    if some("top_p"):
        p["top_p"] = float(rng.choice([0.95, 0.9, 0.5, 0.1, 1e-6, 0.999, 0.9999999, rng.random() + 1e-9]))
    if some("min_p", 0.25):
        p["min_p"] = float(rng.choice([0.05, 0.5, 1.0, 1e-6]))
    if some("penalties", 0.3):
        p["repetition_penalty"] = float(rng.choice([1, 1.05, 1.3, 0.7]))
        p["frequency_penalty"] = float(rng.choice([0, 0.5, -0.5]))
        p["presence_penalty"] = float(rng.choice([0, 0.4]))
    if some("bias", 0.2):
        ids = rng.choice(vocab, min(vocab, int(rng.choice([1, 10, 300]))), replace=False)
        p["logit_bias"] = [(int(t), float(rng.normal() * 5)) for t in ids]
    if some("allowed", 0.15):
        p["allowed_token_ids"] = [int(t) for t in rng.choice(vocab, min(vocab, int(rng.choice([1, 40, 3000]))))]
    if some("bad", 0.2):
        p["bad_words"] = [[int(t) for t in rng.integers(vocab, size=rng.integers(1, 4))] for _ in range(5)]
    if some("ends", 0.3):
        p["eos_token_ids"] = [int(rng.integers(vocab))]
        p["stop_token_ids"] = [int(t) for t in rng.integers(vocab, size=3)]
        p["ignore_eos"] = bool(rng.random() < 0.3)
    return p


def make_batch(rng: np.random.Generator, pair: Pair, n: int, vocab: int, n_logits: int) -> list[dict[str, Any]]:
    rows = []
    for slot in range(n):
        prompt = rng.integers(vocab, size=rng.integers(1, 30)).tolist()
        output = rng.integers(vocab, size=rng.integers(0, 20)).tolist()
        pair.add(slot, prompt, output, **make_params(rng, vocab))
        row = {"logit_row": int(rng.integers(n_logits)), "slot": slot, "token_index": len(output)}
        if rng.random() < 0.4:
            row["n_top"] = int(rng.choice([0, 1, 5, MAX_TOP]))
        if rng.random() < 0.1:
            row["target"] = int(rng.integers(vocab))
        row["suppress_stop"] = bool(rng.random() < 0.3)
        rows.append(row)
    return rows


@pytest.mark.parametrize("n", [1, 5, 40])
@pytest.mark.parametrize("vocab", [1, 31, 32, 1000, 5003, 32000, 151936])
def test_every_mixture_of_options_draws_as_the_cpu(device: Device, vocab: int, n: int) -> None:
    n_rounds = max(1, 24 // n) if vocab > 5003 else max(2, 80 // n)
    pair = Pair(device, n, vocab, stride=vocab + int(vocab == 1000))
    for seed in range(n_rounds):
        rng = np.random.default_rng([vocab, n, seed])
        n_logits = max(1, n * 3 // 4)
        logits = np.stack([make_row(rng, vocab) for _ in range(n_logits)])
        pair.step(logits, make_batch(rng, pair, n, vocab, n_logits))


CASES: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.8},
    {"temperature": 0.8, "top_p": 0.95},
    {"top_k": 50},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.9},
    {"top_k": 3000, "top_p": 0.9},
    {"min_p": 0.02, "temperature": 1.3, "top_p": 0.99},
    {"temperature": 100.0, "top_p": 0.5},
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(f"{k}{v}" for k, v in c.items()))
def test_a_large_vocabulary_draws_as_the_cpu(device: Device, case: dict[str, Any]) -> None:
    vocab = 152064
    rng = np.random.default_rng(7)
    for n, rounds in ((1, 6), (24, 2)):
        pair = Pair(device, n, vocab)
        for slot in range(n):
            pair.add(slot, [1], seed=slot, **case)
        for i in range(rounds):
            logits = rng.standard_normal((n, vocab), dtype=np.float32) * np.float32([1, 3][i % 2])
            pair.step(logits, [{"logit_row": s, "slot": s, "token_index": i} for s in range(n)])


@pytest.mark.parametrize("vocab", [300, 20011])
def test_histories_follow_the_devices_own_draws(device: Device, vocab: int) -> None:
    """20 steps with penalties and bad words, and a slot that is taken over in between."""
    n = 8
    rng = np.random.default_rng(vocab)
    pair = Pair(device, n, vocab)
    drawn: list[list[int]] = [[] for _ in range(n)]
    params = [
        {
            "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.3, "seed": s, "top_k": 8,
            "bad_words": [[4, 5], [1, 2, 3], [int(t) for t in rng.integers(8, size=2)]], "max_tokens": 64,
        }
        for s in range(n)
    ]  # fmt: skip
    for slot in range(n):
        pair.add(slot, [1, 2, 3], **params[slot])
    for i in range(20):
        if i == 10:  # preempted, and resumed in another slot
            pair.add(3, [1, 2, 3], drawn[3], **params[3])
        logits = rng.standard_normal((n, vocab), dtype=np.float32)
        logits[:, :8] += 3
        rows = [{"logit_row": s, "slot": s, "token_index": len(drawn[s])} for s in range(n)]
        for slot, result in enumerate(pair.step(logits, rows)):
            drawn[slot].append(result["token"])


def test_a_row_draws_alone_as_in_a_batch(device: Device) -> None:
    """One row has eight CTAs, one of 300 has one."""
    vocab, n = 32000, 300
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((16, vocab), dtype=np.float32)
    sampler = device_sampler.DeviceSampler(device, n, vocab, MAX_TOP, n)
    rows = [{"logit_row": s % 16, "slot": s, "token_index": s, "n_top": s % 3 - 1} for s in range(n)]

    def add_all() -> None:
        for slot in range(n):
            sampler.add(slot, [slot], seed=slot, **CASES[slot % len(CASES)])

    add_all()
    together = sampler.step(logits, rows)
    add_all()
    for size in (1, 7, 60):
        for start in range(0, n, 60):
            part = rows[start : start + size]
            assert sampler.step(logits, part) == together[start : start + size]


def test_what_exceeds_a_capacity_is_refused(device: Device) -> None:
    sampler = device_sampler.DeviceSampler(device, 1, 5000, 0, 1)
    for name, value in (
        ("logit_bias", [(t, 1.0) for t in range(1025)]),
        ("bad_words", [[1] * 2049]),
        ("stop_token_ids", list(range(257))),
    ):
        with pytest.raises(ValueError, match=name):
            sampler.add(0, [1], **{name: value})
