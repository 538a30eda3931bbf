"""Tiny models for tests of plans, weights and whole models: configurations, checkpoints, steps without a scheduler."""

import json
import os
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from rvllm._native.bound_plan import BoundPlan
from rvllm._native.device import Device
from rvllm._native.plan import NativePlan
from rvllm.memory import Sizes
from rvllm.models import read_model_config, trace

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 160,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "dtype": "float32",
    "eos_token_id": 2,
}
VARIANTS = {
    "llama": LLAMA,
    "llama-tied": LLAMA | {"tie_word_embeddings": True, "num_key_value_heads": 4},
    "llama-biased": LLAMA | {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
    "llama3-rope": LLAMA
    | {
        "head_dim": 32,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "llama-linear-rope": LLAMA | {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    "qwen2": LLAMA | {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False},
    "qwen3": LLAMA | {"architectures": ["Qwen3ForCausalLM"], "head_dim": 32, "tie_word_embeddings": True},
}


def write_config(directory: Path, config: dict) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    return str(directory)


def sizes(**changes) -> Sizes:
    values = {
        "dtype": "f32",
        "kv_cache_dtype": "f32",
        "max_model_len": 256,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "max_prefill_chunk": 64,
        "max_mixed_tokens": 64,
        "max_rows": 64,
        "block_size": 16,
        "num_blocks": 64,
    }
    return Sizes(**values | changes)


def bind(plan, s: Sizes | None = None, device: Device | None = None) -> BoundPlan:
    s = s or sizes()
    return BoundPlan(
        NativePlan(plan),
        device or Device("cpu", 2),
        s.limits(len(plan.cache_groups)),
        kv_dtype=s.kv_cache_dtype,
        groups=[(g.n_layers, g.n_kv_heads, g.head_dim) for g in plan.cache_groups],
        n_blocks=s.num_blocks,
        block_size=s.block_size,
        max_model_len=s.max_model_len,
        n_host_blocks=s.num_cpu_blocks,
    )


def trace_variant(name: str, directory: Path, dtype: str = "f32", **changes):
    return trace(read_model_config(write_config(directory, VARIANTS[name] | changes)), dtype)


def random_checkpoint(plan, seed: int = 0) -> dict[str, np.ndarray]:
    """Return a float32 array for every weight that the plan takes from a checkpoint."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for w in plan.weights():
        for name, n_rows in w.sources:
            shape = (n_rows,) if w.format == "vector" else (n_rows, w.k)
            scale, offset = (0.2, 1.0) if "norm" in name else (0.3 if w.format == "vector" else w.k**-0.5, 0.0)
            arrays[name] = (offset + scale * rng.standard_normal(shape)).astype(np.float32)
    return arrays


def write_checkpoint(directory: Path, name: str, seed: int = 0, **changes) -> str:
    """Write a whole model directory with random float32 weights; `changes` are fields of config.json."""
    plan = trace_variant(name, directory, **changes)
    save_file(random_checkpoint(plan, seed), directory / "model.safetensors")
    return str(directory)


def pack(plan, bound: BoundPlan, arrays: dict[str, np.ndarray]) -> None:
    for index, w in enumerate(plan.weights()):
        parts = [w.constant] if w.constant is not None else [arrays[name] for name, _ in w.sources]
        data = np.ascontiguousarray(np.concatenate(parts))
        bound.pack(index, data.reshape(-1).view(np.uint8), "f32", 0, w.n)


class Sequences:
    """Block tables and lengths of a few sequences, so that a test can run any mix of chunks through a plan."""

    def __init__(self, bound: BoundPlan, n_seqs: int, seed: int = 0):
        self.bound = bound
        blocks_each = bound.n_blocks // n_seqs
        self.tables = np.random.default_rng(seed).permutation(blocks_each * n_seqs).reshape(n_seqs, blocks_each)
        self.lens = [0] * n_seqs
        self.extra_rows: tuple[int, ...] = ()  # token indices whose logits a step gives once more, behind the others

    def run(self, chunks: dict[int, list[int]], last_only: bool = False) -> list[np.ndarray]:
        """Run one step: {sequence: tokens}. Return logits [n, vocab] per chunk: of all its tokens, or of the last."""
        bs = self.bound.block_size
        ids, positions, slots, starts, kv_len, table_start, blocks = [], [], [], [0], [], [0], []
        for s, tokens in chunks.items():
            at = np.arange(self.lens[s], self.lens[s] + len(tokens))
            self.lens[s] += len(tokens)
            ids += tokens
            positions.append(at)
            slots.append(self.tables[s, at // bs] * bs + at % bs)
            starts.append(len(ids))
            kv_len.append(self.lens[s])
            blocks.append(self.tables[s, : -(-self.lens[s] // bs)])
            table_start.append(table_start[-1] + len(blocks[-1]))
        arrays = [ids, np.concatenate(positions), np.concatenate(slots), starts, kv_len, table_start]
        rows = np.array(starts[1:]) - 1 if last_only else np.arange(len(ids))
        rows = np.append(rows, self.extra_rows)
        arrays += [np.concatenate(blocks), rows]
        logits = self.bound.forward(*(np.ascontiguousarray(a, np.int32) for a in arrays))
        return np.split(logits, len(chunks)) if last_only else np.split(logits, starts[1:-1])


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a child process that can import what this one can."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)} | changes
