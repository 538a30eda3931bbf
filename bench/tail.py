"""Does a busy Python thread lengthen the engine's steps?

The engine runs 32 streams of the demo model on one core, without pause. On another core a Python thread of the same
process makes and collects garbage (a million live objects) in every second slice of time. A pair is a quiet slice and a
loud one next to it, and gives one ratio of the step time's 99th percentile. How far two slices differ by themselves is
what quiet slices show, each against the quiet one before it. Beside the engine, the same for a loop that does as much
work without the GIL but takes it once per step to hand over a token, as engines do whose loop is Python.

All slices hold the same mix of steps: contexts of 32 to 288 tokens, and an end and a prompt in every eighth step.
Requests wait in the engine's queue, so that its batch stays full however late Python is. The table tells what else took
the time of the engine's thread: page faults, and the share of time in which it wanted to run and was not let.

    python bench/tail.py [--seconds 1] [--pairs 20] [--plot tail.png] [--json]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import rvllm
from rvllm import LLM, SamplingParams, sampling

DEMO = Path(rvllm.__file__).parent / "demo"
STREAMS = 32
N_PROMPT, N_OUTPUT = 32, 256
SETTLE_S = 0.1  # of a slice before it counts


class Garbage:
    """A thread on `core` with a million objects; while `loud`, it replaces and collects them over and over."""

    def __init__(self, core: int):
        self._core = core
        self._loud, self._quiet = threading.Event(), threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        os.sched_setaffinity(0, {self._core})
        keep = [[i] for i in range(1_000_000)]
        while not self._ended:
            if not self._loud.is_set():
                self._quiet.set()
                self._loud.wait()
            keep[: len(keep) // 10] = [[i] for i in range(len(keep) // 10)]
            gc.collect()

    def __enter__(self) -> Garbage:
        self._thread.start()
        self._quiet.wait()
        return self

    def __exit__(self, *exc) -> None:
        self._ended = True
        self._loud.set()
        self._thread.join()

    def set(self, loud: bool) -> None:
        if loud:
            self._quiet.clear()
            self._loud.set()
        else:
            self._loud.clear()
            self._quiet.wait()


class Thread:
    """What the system counts for one thread of this process: page faults, nanoseconds spent and waited for a CPU."""

    def __init__(self, name: str):
        tasks = [task for task in Path("/proc/self/task").iterdir() if (task / "comm").read_text().strip() == name]
        self._task = tasks[0] if tasks else None

    def counters(self) -> np.ndarray:
        if self._task is None:
            return np.zeros(3)
        faults = (self._task / "stat").read_text().rpartition(")")[2].split()[7]
        ran, waited = (self._task / "schedstat").read_text().split()[:2]
        return np.array([faults, ran, waited], float)


class EngineSide:
    """Streams of the demo model: `slice` gives the step times of the next seconds."""

    name = "engine"

    def __init__(self, llm: LLM):
        self._engine = llm.engine
        self._rng = np.random.default_rng(0)
        self._submitted = 0
        self._thread = Thread("rvllm-engine")
        self.counters = {"quiet": np.zeros(3), "loud": np.zeros(3)}
        while self._submitted < 2 * STREAMS or self._engine.stats().steps < 2 * N_OUTPUT:
            self._poll()

    def _poll(self) -> None:
        """Keep many times more requests in the queue than end between two polls."""
        for _ in range(min(64, 1000 - self._engine.n_unfinished)):
            # The first streams end one after the other, so that all contexts occur at any time.
            n_output = N_OUTPUT * min(self._submitted + 1, STREAMS) // STREAMS
            params = SamplingParams(max_tokens=n_output, ignore_eos=True, temperature=0.0)
            prompt = self._rng.integers(3, self._engine.vocab_size, N_PROMPT).tolist()
            self._engine.submit(prompt, params, on_update=lambda *_: None)
            self._submitted += 1
        self._engine.poll(0.02)

    def _histogram(self) -> dict[int, int]:
        return dict(self._engine.histograms()["step_us"][0])

    def slice(self, seconds: float, condition: str) -> list[float]:
        counters, before = self._thread.counters(), self._histogram()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._engine.stats().n_waiting > 0, "the engine's queue ran dry"
            self._poll()
        after = self._histogram()
        self.counters[condition] += self._thread.counters() - counters
        times: list[float] = []
        for low, n in after.items():
            n -= before.get(low, 0)
            width = max(1, 1 << low.bit_length() - 6)  # of a bucket (engine_thread.h); spread what it holds
            times.extend(low + width * (np.arange(n) + 0.5) / max(n, 1))
        return times


class GilSide:
    """A Python loop on `core`: softmaxes without the GIL, about as long as a step, then a token handed over."""

    name = "loop that takes the GIL"

    def __init__(self, core: int):
        self._core = core
        self._rows = np.random.default_rng(0).normal(0, 3, (512, 3072)).astype(np.float32)

    def slice(self, seconds: float, _condition: str) -> list[float]:
        times: list[float] = []
        tokens: list[int] = []

        def loop() -> None:
            os.sched_setaffinity(0, {self._core})
            end = time.monotonic() + seconds
            last = time.perf_counter()
            while time.monotonic() < end:
                sampling.softmax(self._rows, out=self._rows)
                tokens.append(len(tokens))
                now = time.perf_counter()
                times.append((now - last) * 1e6)
                last = now

        thread = threading.Thread(target=loop)
        thread.start()
        thread.join()
        return times


Slice = Callable[[float, str], list[float]]
Pair = dict[str, list[float]]  # by condition


def pairs_of(take: Slice, garbage: Garbage, n_pairs: int, seconds: float) -> list[Pair]:
    """Take quiet and loud slices in turns."""
    pairs = []
    for i in range(n_pairs):
        pair: Pair = {}
        for condition in ("quiet", "loud") if i % 2 == 0 else ("loud", "quiet"):
            garbage.set(condition == "loud")
            time.sleep(SETTLE_S)
            pair[condition] = take(seconds, condition)
        pairs.append(pair)
    garbage.set(False)
    return pairs


def p99(times: list[float]) -> float:
    return float(np.percentile(times, 99))


def other_core(first: int, cores: list[int]) -> int:
    """Return a core that shares no execution units with the first."""
    path = Path(f"/sys/devices/system/cpu/cpu{first}/topology/thread_siblings_list")
    siblings = set()
    for part in path.read_text().strip().split(",") if path.exists() else []:
        begin, _, end = part.partition("-")
        siblings |= set(range(int(begin), int(end or begin) + 1))
    return next((core for core in cores if core != first and core not in siblings), cores[1])


def histogram(title: str, times: list[float]) -> list[str]:
    """Return a histogram of `times` as text, by quarters of powers of two."""
    edges = [0.0, *(2.0 ** (i / 4) for i in range(16, 72)), np.inf]
    counts = np.histogram(times, bins=edges)[0]
    lines = [f"{title}: p50 {np.percentile(times, 50):.0f} us, p99 {p99(times):.0f} us, {len(times)} steps"]
    for low, count in zip(edges, counts, strict=False):
        if count:
            lines.append(f"  from {low:>8.0f} us {count:>8} {'#' * max(1, round(50 * count / len(times)))}")
    return lines


def quartiles(values: list[float]) -> str:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="per slice")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--plot", type=Path, help="write both histograms as a picture (needs matplotlib)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.pairs < 2:
        parser.error("--pairs: at least 2")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("this needs two cores", file=sys.stderr)
        return 2
    first, second = cores[0], other_core(cores[0], cores)

    os.sched_setaffinity(0, {first})  # the engine thread inherits it
    llm = LLM(str(DEMO), threads=1, skip_tokenizer=True, max_num_seqs=STREAMS)
    os.sched_setaffinity(0, {second})
    gc.freeze()
    runs: dict[str, list[Pair]] = {}
    with Garbage(second) as garbage:
        engine = EngineSide(llm)
        runs[engine.name] = pairs_of(engine.slice, garbage, args.pairs, args.seconds)
        llm.close()
        loop = GilSide(first)
        runs[loop.name] = pairs_of(loop.slice, garbage, max(2, args.pairs // 4), args.seconds)

    for name, pairs in runs.items():
        ratios = [p99(pair["loud"]) / p99(pair["quiet"]) for pair in pairs]
        noise = [p99(b["quiet"]) / p99(a["quiet"]) for a, b in itertools.pairwise(pairs)]
        times = {c: [t for pair in pairs for t in pair[c]] for c in ("quiet", "loud")}
        if args.json:
            row = {"name": f"step p99, {name}", "unit": "us", "ours": p99(times["loud"]), "peer": "quiet",
                   "peer_value": p99(times["quiet"]), "ratio": statistics.median(ratios),
                   "machine": os.uname().machine, "command": " ".join(sys.argv)}  # fmt: skip
            print(json.dumps(row))
            continue
        print(f"\n{name}, p99 of a step in us, on cores {first} and {second}")
        print(f"{'pair':>6}{'quiet':>10}{'loud':>10}{'ratio':>8}")
        for i, (pair, ratio) in enumerate(zip(pairs, ratios, strict=True)):
            print(f"{i:>6}{p99(pair['quiet']):>10.0f}{p99(pair['loud']):>10.0f}{ratio:>8.3f}")
        all_steps = [np.percentile(times["loud"], p) / np.percentile(times["quiet"], p) for p in (50, 99)]
        print(f"loud to quiet: median {quartiles(ratios)}; of all steps p50 {all_steps[0]:.3f}, p99 {all_steps[1]:.3f}")
        print(f"quiet to the quiet before: median {quartiles(noise)}")
        if name == engine.name:
            for condition, (faults, ran, waited) in engine.counters.items():
                share = waited / max(ran + waited, 1)
                alone = "" if share < 0.01 else ": something else ran there, repeat this on a quiet machine"
                print(f"{condition}: {faults:.0f} page faults, waited for the core {share:.1%} of the time{alone}")
        for condition in ("quiet", "loud"):
            print("\n".join(histogram(f"{name}, {condition}", times[condition])))
    if args.plot:
        plot(runs, args.plot)
    return 0


def plot(runs: dict[str, list[Pair]], path: Path) -> None:
    """Draw the histograms, one panel a side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(runs), figsize=(11, 4), sharey=True, constrained_layout=True)
    for panel, (name, pairs) in zip(panels, runs.items(), strict=True):
        for condition, colour in (("quiet", "tab:blue"), ("loud", "tab:red")):
            times = [t for pair in pairs for t in pair[condition]]
            bins = np.geomspace(max(min(times), 1), max(times) * 1.05, 80)
            weights = np.full(len(times), 1 / len(times))
            panel.hist(times, bins=bins, weights=weights, histtype="step", color=colour, label=condition)
        panel.set(xscale="log", yscale="log", title=name, xlabel="step time, microseconds")
    panels[0].set_ylabel("share of steps")
    panels[0].legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
