"""How fast are the sampling primitives, next to tuned NumPy and to torch?

Microseconds per call, the Python call included. Sides take turns; every call gets the next row of a rotation that is
restored outside the timed region (rows of penalties are few enough to stay in cache, as after the LM head). A figure is
the median of --rounds rounds, with half the distance of the quartiles in brackets. Each workload without a random draw
is checked against its NumPy side before it is timed. Peers run on one thread; "2 threads" is rvllm with num_threads=2,
in wall time. "aim" is the figure to reach on a quiet EPYC (Zen 5) core.

--cpu-time counts the CPU time of the calling thread instead of wall time: use it on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from rvllm import sampling

RNG = np.random.default_rng(0)
F32 = np.float32
REPETITION, FREQUENCY, PRESENCE = F32(1.1), F32(0.5), F32(0.5)
Side = Callable[[np.ndarray], object]


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
    times: dict[str, list[float]] = field(default_factory=dict)


def same_row(data: np.ndarray, rtol: float = 1e-5, n_different: int = 0) -> Callable[[Side, Side], bool]:
    def check(ours: Side, peer: Side) -> bool:
        a, b = data[0].copy(), data[0].copy()
        x, y = ours(a), peer(b)
        equal = x is None or y is None or np.allclose(x, y, rtol=rtol, atol=1e-9)
        return equal and int((~np.isclose(a, b, rtol=rtol, atol=1e-6)).sum()) <= n_different

    return check


def normal(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) * 3).astype(F32)


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
        out.append(Workload(name, normal(2, 64, vocab), ours(1), peers, aim, ours(2), aim_two))

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


def measure(work: Workload, rounds: int, clock: Callable[[], float]) -> None:
    if work.same is not None and not work.same(work.ours, work.peers["numpy"]):
        raise SystemExit(f"{work.name}: rvllm and NumPy differ")
    items = np.empty_like(work.data)
    sides = {"ours": work.ours, **work.peers}
    for name, side in sides.items():
        time_round(work, side, items, clock)
        work.times[name] = []
    for _ in range(rounds):
        for name, side in sides.items():
            work.times[name].append(time_round(work, side, items, clock))
    if work.two_threads is not None:  # wall time: CPU time would not see the other thread
        time_round(work, work.two_threads, items, time.perf_counter)
        work.times["two"] = [time_round(work, work.two_threads, items, time.perf_counter) for _ in range(rounds)]


def read_bandwidth() -> float:
    data = np.ones(1 << 26, F32)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        data.max()
        times.append(time.perf_counter() - start)
    return data.nbytes / statistics.median(times) / 1e9


def machine() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, Python {platform.python_version()}, NumPy {np.__version__}"


def cell(times: list[float]) -> str:
    quartiles = statistics.quantiles(times, n=4)
    return f"{statistics.median(times):,.2f} ({(quartiles[2] - quartiles[0]) / 2:,.2f})"


def print_table(works: list[Workload]) -> None:
    header = ["workload", "rvllm us", "2 threads", "numpy us", "x", "torch us", "x", "aim us"]
    lines = [header]
    for work in works:
        ours = statistics.median(work.times["ours"])
        line = [work.name, cell(work.times["ours"]), cell(work.times["two"]) if "two" in work.times else ""]
        for peer in ("numpy", "torch"):
            if peer in work.times:
                median = statistics.median(work.times[peer])
                line += [cell(work.times[peer]), f"{median / ours:.1f}"]
            else:
                line += ["", ""]
        lines.append([*line, f"{work.aim:g}" + (f" / {work.aim_two:g}" if work.aim_two else "")])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        print(
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        )


def print_json(works: list[Workload]) -> None:
    for work in works:
        ours = statistics.median(work.times["ours"])
        for peer in work.peers:
            value = statistics.median(work.times[peer])
            row = {"name": work.name, "unit": "us", "ours": ours, "peer": peer, "peer_value": value,
                   "ratio": value / ours, "aim": work.aim, "machine": machine(),
                   "command": " ".join(sys.argv)}  # fmt: skip
            if "two" in work.times:
                row["ours_2_threads"] = statistics.median(work.times["two"])
            print(json.dumps(row))


def plot(works: list[Workload], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(11, 0.62 * len(works) + 1.4), layout="constrained")
    colors = {"ours": "#c1440e", "numpy": "#4c78a8", "torch": "#9d9da1"}
    for i, (side, color) in enumerate(colors.items()):
        values = [statistics.median(w.times[side]) if side in w.times else 0 for w in works]
        bars = axes.barh([y + 0.27 * (i - 1) for y in range(len(works))], values, 0.25, color=color,
                         label="rvllm" if side == "ours" else side)  # fmt: skip
        axes.bar_label(bars, [f"{v:,.3g}" if v else "" for v in values], padding=2, fontsize=7)
    axes.set_yticks(range(len(works)), [w.name for w in works])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("microseconds per call, one thread (log scale)")
    axes.set_title(machine(), fontsize=9)
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="workloads whose name holds this text")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of the thread instead of wall time")
    parser.add_argument("--json", action="store_true", help="one JSON object per row and peer")
    parser.add_argument("--plot", metavar="FILE", help="draw the table, as PNG, SVG or PDF")
    args = parser.parse_args()
    if args.rounds < 5:
        parser.error("--rounds: at least 5")

    past = [RNG.permutation(32_000)[: 100 + 10 * i].astype(np.int32) for i in range(64)]
    torch = {} if args.no_torch else torch_sides(past)
    works = []
    for make in (penalty_workloads, row_workloads, lambda sides: batch_workloads(sides, past)):
        for work in make(torch):
            if args.only in work.name:
                measure(work, args.rounds, time.thread_time if args.cpu_time else time.perf_counter)
                works.append(work)
    if args.json:
        print_json(works)
    else:
        clock = "CPU" if args.cpu_time else "wall"
        print(f"{machine()}; read bandwidth {read_bandwidth():.0f} GB/s")
        print(f"{clock} time, median of {args.rounds} (half the distance of the quartiles)\n")
        print_table(works)
    if args.plot:
        plot(works, args.plot)


if __name__ == "__main__":
    main()
