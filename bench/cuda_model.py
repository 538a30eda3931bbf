"""Time steps of a model of Qwen2.5-7B's shape on CUDA: random bf16 weights, no sampler, no scheduler.

    PYTHONPATH=python python bench/cuda_model.py [config.json] [--gemm-strategy hybrid]

Milliseconds of one step, submitted behind others so that only the device counts, and the tokens/s that follow. Decode
steps are captured graphs. Memory is what `rvllm plan` counts.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from random_models import write_model
from rvllm.engine_config import EngineConfig
from rvllm.loader import load

DECODE = [(1, 160), (4, 160), (16, 160), (32, 160), (64, 160), (128, 160), (256, 160), (64, 1024), (1, 32000)]
PREFILL = [(1, 128), (1, 512), (1, 2048), (8, 2048)]


def step(n_seqs: int, n_keys: int, n_new: int, n_blocks: int, vocab_size: int) -> tuple[np.ndarray, ...]:
    """Return the arrays of a step of `n_seqs` sequences with `n_new` new tokens of `n_keys` each."""
    tables = np.arange(n_seqs * -(-n_keys // 16)).reshape(n_seqs, -1) % n_blocks
    positions = np.arange(n_keys - n_new, n_keys)
    arrays = (
        np.random.default_rng(0).integers(0, vocab_size, n_seqs * n_new),
        np.tile(positions, n_seqs),
        (tables[:, positions // 16] * 16 + positions % 16).ravel(),
        np.arange(n_seqs + 1) * n_new,
        np.full(n_seqs, n_keys),
        np.arange(n_seqs + 1) * tables.shape[1],
        tables.ravel(),
        np.arange(1, n_seqs + 1) * n_new - 1,
    )
    return tuple(np.ascontiguousarray(a, np.int32) for a in arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help="default: Qwen2.5-7B's shape")
    parser.add_argument("--gemm-strategy", default="cutlass")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        if args.config:
            shutil.copy(args.config, Path(directory) / "config.json")
        else:
            write_model(directory, "7b")
        flags = {"max_num_seqs": 256, "max_num_batched_tokens": 16384, "max_prefill_chunk": 16384, "num_blocks": 20000}
        started = time.perf_counter()
        flags |= {"device": "cuda", "load_format": "dummy", "gemm_strategy": args.gemm_strategy}
        loaded = load(EngineConfig(model=directory, max_model_len=32768, **flags))
        bound, sizes = loaded.plan, loaded.sizes
    print(f"load: {time.perf_counter() - started:.2f} s")
    vocab_size = loaded.model.vocab_size
    print(f"{'step':<24}{'ms':>9}{'tokens/s':>11}")
    for n_new, shapes in ((1, DECODE), (0, PREFILL)):
        for n_seqs, n_keys in shapes:
            new = n_new or n_keys
            bound.forward(*step(n_seqs, n_keys, new, sizes.num_blocks, vocab_size))
            seconds = np.median([bound.replay(10) for _ in range(3)])
            label = f"{'decode' if n_new else 'prefill'} {n_seqs} at {n_keys}"
            print(f"{label:<24}{seconds * 1e3:>9.3f}{n_seqs * new / seconds:>11.0f}")


if __name__ == "__main__":
    main()
