"""How fast is each op of the CPU, beside torch on the same threads and beside what the machine can do?

    python bench/ops.py                    # the shapes of a 0.5B and of a 7B model
    python bench/ops.py --only attention   # cases whose name holds a regular expression
    python bench/ops.py --threads 1 --json

Cases come from tests/cases.py; each is timed only after its result was checked against float64. Sides alternate, the
Python call included; figures are medians over the rounds. Operands that an engine would read from memory (weights,
caches) rotate over copies larger than the last-level cache; activations stay hot, as they are between two ops. Torch
gets the types it is best at: bfloat16 inputs for bfloat16 weights, contiguous keys and values, heads repeated
beforehand where that is faster than its own grouping.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from cases import CASES, Case, Problem
from op_reference import widen
from rvllm._native import opcall, operands

ROTATE_BYTES = 192 * 2**20
ROUND_SECONDS = 0.03
FLOPS_PER_BYTE = 30  # of a case that is bound by arithmetic

Run = Callable[[], object]


# ---- ours ---------------------------------------------------------------------------------------------------


def bind_and_check(cpu: opcall.Cpu, case: Case, p: Problem) -> opcall.Call:
    outputs = [np.full(e.shape, np.nan, np.float32) for e in p.expected]
    inputs = [None if a is None else a.copy() for a in p.inputs]
    weights = p.packed_weights(cpu)
    cache = None if p.cache is None else operands.KvCache(p.cache[0].copy(), p.cache[1].copy())
    step = operands.Step(**p.step) if p.step else None
    call = cpu.bind(case.op, inputs, weights, outputs, p.attrs, step, cache)
    call.run()
    p.check(outputs, None if cache is None else (cache.k, cache.v))
    return call


def our_runs(cpu: opcall.Cpu, case: Case, p: Problem) -> list[opcall.Call]:
    """Return the case bound to as many copies as its operands must come from memory, each checked."""
    n_copies = max(1, min(64, int(ROTATE_BYTES / p.bytes))) if case.op in ("linear", "attention") else 1
    return [bind_and_check(cpu, case, p) for _ in range(n_copies)]


# ---- torch --------------------------------------------------------------------------------------------------


def torch_runs(case: Case, p: Problem, n_copies: int) -> list[Run] | None:
    """Return the same work in torch on as many copies; None: torch has no such op."""
    import torch
    from torch.nn import functional

    def tensor(a: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(widen(a)).to({"uint16": torch.bfloat16, "float16": torch.float16}.get(a.dtype.name))

    def one() -> list[Run] | None:
        if case.op in ("linear", "linear_silu_mul"):
            w = tensor(p.weights[0])
            x = tensor(p.inputs[0]).to(w.dtype)
            if case.op == "linear":
                return [lambda: functional.linear(x, w)]

            def gated() -> torch.Tensor:
                gate, up = functional.linear(x, w).chunk(2, -1)
                return functional.silu(gate) * up

            return [gated]
        if case.op == "attention":
            return attention()
        xs = [tensor(a) for a in p.inputs if a is not None and a.dtype == np.float32]
        if case.op in ("rms_norm", "add_rms_norm"):
            w, shape, eps = tensor(p.weights[0]), (xs[0].shape[1],), p.attrs["eps"]
            if case.op == "rms_norm":
                return [lambda: functional.rms_norm(xs[0], shape, w, eps)]
            return [lambda: functional.rms_norm(xs[0] + xs[1], shape, w, eps)]
        return None

    def attention() -> list[Run]:
        a, tables = p.attrs, p.step["tables"]
        group = a["n_heads"] // a["n_kv_heads"]
        n_keys = p.step["positions"][-1] + 1  # of every sequence of these cases

        def in_order(cache: np.ndarray, table: list[int]) -> torch.Tensor:
            """[kv_head, key, head_dim]"""
            blocks = cache[a["layer"]][table].transpose(1, 0, 2, 3)
            return tensor(blocks.reshape(a["n_kv_heads"], -1, a["head_dim"])[:, :n_keys])

        k, v = (torch.stack([in_order(c, t) for t in tables]).contiguous() for c in p.cache)
        q = tensor(p.inputs[0]).to(k.dtype).reshape(len(tables), -1, a["n_heads"], a["head_dim"]).transpose(1, 2)
        q = q.contiguous()
        causal = q.shape[2] > 1
        wide_k, wide_v = (x.repeat_interleave(group, 1) for x in (k, v))
        sdpa = functional.scaled_dot_product_attention
        return [
            lambda: sdpa(q, k, v, is_causal=causal, enable_gqa=group > 1),
            lambda: sdpa(q, wide_k, wide_v, is_causal=causal),
        ]

    ways = one()
    if ways is None:
        return None
    for run in ways:
        run()
    best = min(range(len(ways)), key=lambda i: min(seconds(ways[i]) for _ in range(3)))
    return [ways[best], *(one()[best] for _ in range(n_copies - 1))]


# ---- timing -------------------------------------------------------------------------------------------------


def seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def one_round(runs: list[Run], at: int, n: int) -> float:
    """Return the median seconds of n calls, taking turns from number `at` on."""
    return statistics.median(seconds(runs[(at + i) % len(runs)]) for i in range(n))


def measure(sides: list[list[Run]], rounds: int) -> list[float]:
    """Return each side's median of `rounds` rounds, the sides alternating."""
    counts = []
    for runs in sides:
        once = min(one_round(runs, 0, 3) for _ in range(2))
        counts.append(max(5, min(2000, int(ROUND_SECONDS / once))))
    times: list[list[float]] = [[] for _ in sides]
    for r in range(rounds):
        for runs, n, t in zip(sides, counts, times, strict=True):
            t.append(one_round(runs, r * n, n))
    return [statistics.median(t) for t in times]


def read_bandwidth(n_threads: int) -> float:
    """Return how fast n threads read memory right now, GB/s: the best of three."""
    data = [np.ones(16 * 2**20, np.float32) for _ in range(n_threads)]

    def once() -> float:
        threads = [threading.Thread(target=a.max) for a in data]
        start = time.perf_counter()
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return sum(a.nbytes for a in data) / (time.perf_counter() - start) / 1e9

    return max(once() for _ in range(3))


def machine(n_threads: int) -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return f"{names[0] if names else platform.machine()}, {n_threads} threads, {opcall.isa_in_use()}"


# ---- the table ----------------------------------------------------------------------------------------------


def report(
    case: Case, kernel: str, p: Problem, times: list[float], read: float | None, args: argparse.Namespace
) -> None:
    work, unit = (p.bytes, "GB/s") if read is not None else (p.flops, "GFLOP/s")
    rates = [work / t / 1e9 for t in times]
    ratio = rates[0] / rates[1] if len(rates) > 1 else None
    if args.json:
        row = {"name": str(case), "unit": unit, "ours": rates[0], "peer": "torch" if ratio else None}
        row |= {"peer_value": rates[1] if ratio else None, "ratio": ratio, "kernel": kernel, "us": times[0] * 1e6}
        row |= {"read_gb_s": read, "machine": machine(args.threads), "command": " ".join(sys.argv)}
        print(json.dumps(row), flush=True)
        return
    peer = f"{times[1] * 1e6:>10.1f}{ratio:>8.2f}" if ratio else f"{'':>18}"
    beside = f"{read:>10.0f}" if read is not None else ""
    print(f"{case!s:<46}{kernel:<26}{times[0] * 1e6:>10.1f}{rates[0]:>9.1f} {unit:<8}{peer}{beside}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="regular expression on the names of the cases")
    parser.add_argument("--all", action="store_true", help="the small cases of the tests too")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-peer", action="store_true", help="only rvllm")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    cpu = opcall.Cpu(args.threads)
    if not args.no_peer:
        import torch

        torch.set_num_threads(args.threads)
    if not args.json:
        print(f"{machine(args.threads)}; {args.rounds} rounds; ratio > 1: faster than torch; read: GB/s right then")
        print(f"{'case':<46}{'kernel':<26}{'us':>10}{'rate':>9} {'':<8}{'torch us':>10}{'ratio':>8}{'read':>10}")
    for case in CASES:
        if not (case.bench or args.all) or not re.search(args.only, str(case)):
            continue
        p = case.problem()
        calls = our_runs(cpu, case, p)
        sides: list[list[Run]] = [[c.run for c in calls]]
        peer = None if args.no_peer else torch_runs(case, p, len(calls))
        if peer is not None:
            sides.append(peer)
        memory_bound = p.flops < FLOPS_PER_BYTE * p.bytes
        times = measure(sides, args.rounds)
        report(case, calls[0].kernel, p, times, read_bandwidth(args.threads) if memory_bound else None, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
