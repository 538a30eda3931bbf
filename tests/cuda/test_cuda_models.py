"""Tiny models on CUDA against the CPU backend: prefill, chunks, decode, mixed batches, captured graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cuda_harness import LONG_NAMES, half

import tiny
from rvllm._native import opcall
from rvllm._native.device import Device
from rvllm.models import read_model_config, trace
from rvllm.plan.fusion import fuse

# Relative error of 16-bit activations through three layers.
TOLERANCE = {"bf16": 2e-2, "f16": 3e-3}
CHANGES = {"head_dim": 64, "hidden_size": 128, "vocab_size": 320}


@dataclass
class Pair:
    """One model on both devices; the CPU keeps activations and cache in float32."""

    cuda: tiny.BoundPlan
    cpu: tiny.BoundPlan


@pytest.fixture(scope="module")
def pairs(cuda: opcall.Ops, tmp_path_factory: pytest.TempPathFactory):
    made: dict[tuple[str, str], Pair] = {}

    def pair(variant: str, dtype: str) -> Pair:
        if (variant, dtype) not in made:
            made[variant, dtype] = make_pair(tmp_path_factory.mktemp(variant), variant, dtype)
        return made[variant, dtype]

    return pair


def make_pair(directory: Path, variant: str, dtype: str, **options: str) -> Pair:
    model = read_model_config(tiny.write_config(directory, tiny.VARIANTS[variant] | CHANGES))
    bounds = {}
    for name, kv in (("cuda", dtype), ("cpu", "f32")):
        device = Device(name, **(options if name == "cuda" else {}))
        plan = fuse(trace(model, dtype, device.activation_dtype(dtype)))
        sizes = tiny.sizes(dtype=dtype, kv_cache_dtype=kv, max_num_seqs=40, num_blocks=200)
        bounds[name] = tiny.bind(plan, sizes, device)
        tiny.pack(plan, bounds[name], tiny.random_checkpoint(plan))
    return Pair(**bounds)


def tokens_of(n_seqs: int, n_tokens: int, seed: int = 3) -> list[list[int]]:
    return np.random.default_rng(seed).integers(0, 320, (n_seqs, n_tokens)).tolist()


def run_chunks(bound, tokens: list[int], chunking: list[int]) -> np.ndarray:
    seqs, start, logits = tiny.Sequences(bound, 2), 0, []
    for n in chunking:
        logits += seqs.run({0: tokens[start : start + n]})
        start += n
    return np.concatenate(logits)


def error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


CHUNKINGS = {
    "whole": [60],
    "chunks": [17, 1, 30, 12],
    "block-sized": [16, 16, 16, 12],
    "decode": [20] + [1] * 40,
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_logits(pairs, variant: str, dtype: str) -> None:
    pair, tokens = pairs(variant, dtype), tokens_of(1, 60)[0]
    want = run_chunks(pair.cpu, tokens, [60])
    assert want.std() > 0.3
    for name, chunking in CHUNKINGS.items():
        assert error(run_chunks(pair.cuda, tokens, chunking), want) < TOLERANCE[dtype], name


@pytest.mark.parametrize("variant", ["llama", "qwen3"])
def test_mixed_batches(pairs, variant: str) -> None:
    """Chunks and decodes of four sequences in one step."""
    dtype = half()
    pair, tokens = pairs(variant, dtype), tokens_of(4, 50)
    both = [tiny.Sequences(b, 4) for b in (pair.cuda, pair.cpu)]
    done, rng = [0] * 4, np.random.default_rng(0)
    while min(done) < 50:
        chunks = {}
        for s in rng.permutation(4)[: rng.integers(1, 5)].tolist():
            n = min(int(rng.choice([1, 1, 5, 16])), 50 - done[s])
            if n:
                chunks[s] = tokens[s][done[s] : done[s] + n]
                done[s] += n
        if chunks:
            got, want = (np.concatenate(seqs.run(chunks)) for seqs in both)
            assert error(got, want) < TOLERANCE[dtype]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40])
def test_captured_decode_is_the_direct_launch(pairs, n: int) -> None:
    """Around every bucket's boundary, to the bit. A step that wants a row twice is not captured."""
    bound, tokens = pairs("llama", half()).cuda, tokens_of(n, 24, seed=n)
    results = []
    for captured in (True, False):
        seqs = tiny.Sequences(bound, n)
        for s in range(n):
            seqs.run({s: tokens[s][: 20 + s % 3]})
        chunks = {s: tokens[s][-1:] for s in range(n)}
        seqs.extra_rows = () if captured else (0,)
        results.append(np.concatenate(seqs.run(chunks))[:n])
    assert results[0].tobytes() == results[1].tobytes()


def test_text_of_the_plan(cuda: opcall.Ops, tmp_path: Path) -> None:
    pytest.importorskip("msgspec")
    from rvllm.engine_config import EngineConfig
    from rvllm.loader import plan_text

    directory = tiny.write_config(tmp_path, tiny.VARIANTS["qwen2"] | CHANGES | {"dtype": LONG_NAMES[half()]})
    text = plan_text(EngineConfig(model=directory, device="cuda"))
    assert "device cuda" in text and "linear_rope_kv_write" in text and "MISSING" not in text


def test_missing_kernels_are_named(cuda: opcall.Ops, tmp_path: Path) -> None:
    pytest.importorskip("msgspec")
    from rvllm.engine_config import EngineConfig
    from rvllm.errors import ConfigError
    from rvllm.loader import plan_text

    directory = tiny.write_config(
        tmp_path, tiny.VARIANTS["llama"] | CHANGES | {"head_dim": 48, "dtype": LONG_NAMES[half()]}
    )
    with pytest.raises(ConfigError, match="device cuda has no kernel for: attention"):
        plan_text(EngineConfig(model=directory, device="cuda"))
