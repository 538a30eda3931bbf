"""Do the sampling primitives run at once in several Python threads?

    python bench/sampling_threads.py [--rows 16] [--vocab 32000] [--threads 2]

Each thread calls a primitive on a batch of its own, one thread inside the primitive (num_threads=1). "x" is calls per
second of all threads over those of one: their number where nothing is shared but memory, 1 where a lock is held. Rounds
of one and of several threads take turns; a figure is the median of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from rvllm import sampling


def primitives(vocab: int) -> dict[str, Callable[[np.ndarray], object]]:
    """Every public primitive as a function of a batch. Those that change rows find them changed the next time."""
    ids = np.random.default_rng(0).permutation(vocab)[:500].astype(np.int32)
    counts = np.zeros(vocab, np.int32)
    counts[ids] = 1
    bits = np.full((vocab + 31) // 32, 0x5555_5555, np.int32)
    return {
        "apply_penalties": lambda x: sampling.apply_penalties(x, counts=counts, presence_penalty=1e-3),
        "apply_temperature": lambda x: sampling.apply_temperature(x, 1.0),
        "apply_top_k": lambda x: sampling.apply_top_k(x, 50),
        "apply_top_p": lambda x: sampling.apply_top_p(x, 0.999),
        "apply_min_p": lambda x: sampling.apply_min_p(x, 0.02),
        "apply_bitmask": lambda x: sampling.apply_bitmask(x, bits),
        "softmax": lambda x: sampling.softmax(x, out=x),
        "log_softmax": lambda x: sampling.log_softmax(x, out=x),
        "argmax": sampling.argmax,
        "top_logprobs": lambda x: sampling.top_logprobs(x, 5),
        "multinomial": lambda x: sampling.multinomial(x, 1),
        "sample_batch": lambda x: sampling.sample_batch(x, temperature=0.8, top_k=50, top_p=0.9, seed=1),
    }


def calls_per_second(call: Callable[[np.ndarray], object], batches: list[np.ndarray], seconds: float) -> float:
    """Calls of one thread per batch, in all, until `seconds` are over."""
    counts = [0] * len(batches)
    ready = threading.Barrier(len(batches) + 1)

    def work(i: int) -> None:
        batch, n = batches[i], 0
        ready.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            call(batch)
            n += 1
        counts[i] = n

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    ready.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def measure(rows: int, vocab: int, n_threads: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Calls per second of one thread and of `n_threads`, by primitive."""
    rng = np.random.default_rng(1)
    batches = [np.abs(rng.standard_normal((rows, vocab))).astype(np.float32) for _ in range(n_threads)]
    results = {}
    for name, call in primitives(vocab).items():
        own = [batch.copy() for batch in batches]
        call(own[0])
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            times[0].append(calls_per_second(call, own[:1], 0.05))
            times[1].append(calls_per_second(call, own, 0.05))
        results[name] = (statistics.median(times[0]), statistics.median(times[1]))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    args = parser.parse_args()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cpus < args.threads:
        print(f"this process may use {cpus} CPUs: {args.threads} threads cannot run at once", file=sys.stderr)
        return 2
    results = measure(args.rows, args.vocab, args.threads, args.rounds)
    if not args.json:
        what = f"calls/s, {args.rows} rows of {args.vocab:,}"
        print(f"{what:<28}{'1 thread':>12}{f'{args.threads} threads':>12}{'x':>7}")
    for name, (one, several) in results.items():
        if args.json:
            print(json.dumps({"name": f"{name}, {args.threads} Python threads", "unit": "calls/s", "ours": several,
                              "peer": "1 Python thread", "peer_value": one, "ratio": several / one,
                              "machine": platform.machine(), "command": " ".join(sys.argv)}))  # fmt: skip
        else:
            print(f"{name:<28}{one:>12,.0f}{several:>12,.0f}{several / one:>7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
