"""The other sides of bench/sampling.py: tuned NumPy, the usual torch code, vLLM in an interpreter of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

RNG = np.random.default_rng(1)
F32 = np.float32
REPETITION, FREQUENCY, PRESENCE = F32(1.1), F32(0.5), F32(0.5)
Side = Callable[[np.ndarray], object]


# ---- tuned NumPy ---------------------------------------------------------------------------------------------------


def numpy_repeat(row: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Repetition above 1 is the smaller of the two: no branch and no mask."""
    v = row.take(ids)
    return np.minimum(v * REPETITION, v * (1 / REPETITION))


def numpy_repetition(ids: np.ndarray) -> Side:
    def run(row):
        row[ids] = numpy_repeat(row, ids)

    return run


def numpy_combined(ids: np.ndarray, counts: np.ndarray) -> Side:
    def run(row):
        v = numpy_repeat(row, ids)
        c = counts.take(ids)
        v -= c * FREQUENCY + (c > 0) * PRESENCE
        row[ids] = v

    return run


def numpy_combined_list(ids: np.ndarray) -> Side:
    def run(row):
        distinct, counts = np.unique(ids, return_counts=True)
        v = numpy_repeat(row, distinct)
        v -= counts * FREQUENCY + PRESENCE
        row[distinct] = v

    return run


def numpy_nucleus(row: np.ndarray, p: float, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights, candidate weights sorted downwards and cut at p, and the smallest that stays. Sums are float32.

    All below (1 - p) * total / n weigh less than 1 - p of the total together: sort only those above.
    """
    w = np.exp((row - row.max()) * F32(1 / temperature))
    total = w.sum()
    top = w[w > (1 - p) * total / len(row)]
    top.sort()
    top = top[::-1]
    n = int(np.searchsorted(np.cumsum(top), p * total)) + 1
    return w, top[:n], top[min(n, len(top)) - 1]


def numpy_top_p(row: np.ndarray) -> None:
    w, _, least = numpy_nucleus(row, 0.9)
    row[w < least] = -np.inf


def numpy_multinomial(probs: np.ndarray) -> int:
    cdf = np.cumsum(probs)
    return int(np.searchsorted(cdf, RNG.random(dtype=F32) * cdf[-1], side="right"))


def numpy_softmax(row: np.ndarray) -> np.ndarray:
    np.subtract(row, row.max(), out=row)
    np.exp(row, out=row)
    row *= 1 / row.sum()
    return row


def numpy_draw_top_p(batch: np.ndarray) -> list[int]:
    tokens = []
    for row in batch:
        w, _, least = numpy_nucleus(row, 0.9, 0.8)
        kept = np.flatnonzero(w >= least)
        cdf = np.cumsum(w[kept])
        tokens.append(int(kept[np.searchsorted(cdf, RNG.random() * cdf[-1], side="right").clip(0, len(kept) - 1)]))
    return tokens


def numpy_pipeline(past: list[np.ndarray]) -> Side:
    """Temperature 0.8, repetition, top-k 50 (a bound from maxima of 64 first), top-p 0.9, draw."""

    def run(batch):
        tokens = []
        for row, ids in zip(batch, past, strict=True):
            row[ids] = numpy_repeat(row, ids)
            maxima = row.reshape(-1, 64).max(axis=1)
            bound = np.partition(maxima, len(maxima) - 50)[len(maxima) - 50]
            kept = np.flatnonzero(row >= bound)
            kept = kept[np.argsort(-row[kept], kind="stable")[:50]]
            w = np.exp((row[kept] - row[kept[0]]) * F32(1 / 0.8))
            cdf = np.cumsum(w)
            n = int(np.searchsorted(cdf, 0.9 * cdf[-1])) + 1
            tokens.append(int(kept[np.searchsorted(cdf[:n], RNG.random() * cdf[n - 1], side="right").clip(0, n - 1)]))
        return tokens

    return run


# ---- torch ---------------------------------------------------------------------------------------------------------


def torch_sides(past: list[np.ndarray]) -> dict[str, Side]:
    """The usual torch code for each, or nothing where torch is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)

    def repetition(ids):
        index = torch.from_numpy(ids.astype(np.int64))

        def run(row):
            x = torch.from_numpy(row)
            v = x[index]
            x[index] = torch.where(v > 0, v / 1.1, v * 1.1)

        return run

    def combined(ids, counts):
        index, c = torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(counts)

        def run(row):
            x = torch.from_numpy(row)
            v, n = x[index], c[index]
            x[index] = torch.where(v > 0, v / 1.1, v * 1.1) - (n * 0.5 + (n > 0) * 0.5)

        return run

    def nucleus(x, p):
        values, index = x.sort(dim=-1, descending=True)
        probs = values.softmax(-1)
        values[probs.cumsum(-1) - probs >= p] = -torch.inf
        return x.scatter_(-1, index, values)

    def draw_top_p(batch):
        return torch.multinomial(nucleus(torch.from_numpy(batch) / 0.8, 0.9).softmax(-1), 1)

    def pipeline(batch):
        x = torch.from_numpy(batch)
        for row, ids in zip(batch, past, strict=True):
            repetition(ids)(row)
        values, index = (x / 0.8).topk(50)
        probs = values.softmax(-1)
        probs[probs.cumsum(-1) - probs >= 0.9] = 0
        return index.gather(1, torch.multinomial(probs, 1))

    return {
        "repetition": repetition,
        "combined": combined,
        "top_p": lambda row: nucleus(torch.from_numpy(row), 0.9),
        "multinomial": lambda row: torch.multinomial(torch.from_numpy(row), 1),
        "softmax": lambda row: torch.softmax(torch.from_numpy(row), 0),
        "argmax": lambda row: torch.argmax(torch.from_numpy(row)),
        "draw_top_p": draw_top_p,
        "pipeline": pipeline,
    }


# ---- vLLM ----------------------------------------------------------------------------------------------------------


class Vllm:
    """vLLM's sampler on one thread, in a process of the interpreter that has it; see sampling_vllm.py."""

    def __init__(self, python: str) -> None:
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": ""}
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("sampling_vllm.py"))],
            env=os.environ | one_thread,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._directory = tempfile.TemporaryDirectory()
        self.version = self._ask({})["version"]

    def _ask(self, request: dict) -> dict:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError("the process with vLLM ended")
        return json.loads(line)

    def load(self, data: np.ndarray, params: dict) -> None:
        """data: [items, rows, vocab]. Later rounds run over these items."""
        path = str(Path(self._directory.name) / "rows.npy")
        np.save(path, data)
        self._ask({"rows": path, **params})

    def round(self, clock: str) -> float:
        """Microseconds per item of one pass over the items, restored before."""
        return self._ask({"clock": clock})["us"]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()


def vllm_side(python: str) -> Vllm | str:
    """The side, or why there is none."""
    try:
        return Vllm(python)
    except (OSError, RuntimeError) as error:
        return f"{python}: {error}"
