"""Does a busy Python thread lengthen the engine's steps?

The engine runs 32 streams of the demo model on one core. In the loud runs a Python thread of the same process, on
another core, makes and collects garbage without pause (a million live objects). Quiet and loud runs alternate; each
pair gives one ratio of the step time's 99th percentile. Beside it, the same for a loop that does as much work without
the GIL but takes it once per step to hand over a token, as engines do whose loop is Python.

    python bench/tail.py [--seconds 4] [--pairs 5] [--plot tail.png] [--json]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np

import rvllm
from rvllm import LLM, SamplingParams, sampling

DEMO = Path(rvllm.__file__).parent / "demo"
STREAMS = 32


class Garbage:
    """A thread on `core` that makes and collects a million objects, over and over."""

    def __init__(self, core: int):
        self._core = core
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        os.sched_setaffinity(0, {self._core})
        keep = [[i] for i in range(1_000_000)]
        while not self._stop.is_set():
            keep[: len(keep) // 10] = [[i] for i in range(len(keep) // 10)]
            gc.collect()

    def __enter__(self) -> None:
        self._thread.start()
        time.sleep(0.5)  # the million are there

    def __exit__(self, *exc) -> None:
        self._stop.set()
        self._thread.join()


def engine_steps(llm: LLM, seconds: float) -> list[float]:
    """Return the step times of `seconds` of decoding, microseconds."""
    engine = llm.engine
    params = SamplingParams(max_tokens=1900, ignore_eos=True, temperature=0.0)
    rng = np.random.default_rng(0)

    def start(*_: object) -> None:
        if running and (not _ or _[0].finished):
            engine.submit(rng.integers(3, engine.vocab_size, 32).tolist(), params, on_update=start)

    running = True
    for _ in range(STREAMS):
        start()
    engine.poll(1.0)
    before = dict(engine.histograms()["step_us"][0])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        engine.poll(0.1)
    after = dict(engine.histograms()["step_us"][0])
    running = False
    for handle in list(engine._handles.values()):
        engine.cancel(handle)
    while not engine.stats().idle:
        time.sleep(0.01)
    return [float(v) for v, n in after.items() for _ in range(n - before.get(v, 0))]


def gil_loop_steps(core: int, seconds: float, work: int) -> list[float]:
    """Return the step times of a Python loop on `core`: `work` softmaxes without the GIL, then a token handed over."""
    times: list[float] = []
    out: list[int] = []

    def loop() -> None:
        os.sched_setaffinity(0, {core})
        row = np.random.default_rng(0).normal(0, 3, (work, 3072)).astype(np.float32)
        end = time.monotonic() + seconds
        last = time.perf_counter()
        while time.monotonic() < end:
            sampling.softmax(row)
            out.append(len(out))
            now = time.perf_counter()
            times.append((now - last) * 1e6)
            last = now

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    return times


def percentile(times: list[float], p: float) -> float:
    return float(np.percentile(times, p))


def histogram(name: str, times: list[float]) -> list[str]:
    """Return a histogram of `times` as text, by powers of two."""
    edges = [2.0**i for i in range(4, 18)]
    counts = np.histogram(times, bins=[0.0, *edges, np.inf])[0]
    lines = [f"{name}: p50 {percentile(times, 50):.0f} us, p99 {percentile(times, 99):.0f} us, {len(times)} steps"]
    for low, count in zip([0.0, *edges], counts, strict=True):
        if count:
            lines.append(f"  from {low:>8.0f} us {count:>8} {'#' * max(1, round(50 * count / len(times)))}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="per run")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="write both histograms as a picture (needs matplotlib)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("this needs two cores", file=sys.stderr)
        return 2

    os.sched_setaffinity(0, {cores[0]})  # the engine thread inherits it
    llm = LLM(str(DEMO), threads=1, skip_tokenizer=True, max_num_seqs=STREAMS)
    os.sched_setaffinity(0, {cores[1]})
    gc.freeze()
    work = 512  # rows of softmax: about as long as a step of the engine
    sides = {
        "engine": lambda: engine_steps(llm, args.seconds),
        "loop that takes the GIL": lambda: gil_loop_steps(cores[0], args.seconds, work),
    }
    runs: dict[tuple[str, str], list[list[float]]] = {(s, c): [] for s in sides for c in ("quiet", "loud")}
    for _ in range(args.pairs):
        for name, side in sides.items():
            runs[name, "quiet"].append(side())
            with Garbage(cores[1]):
                runs[name, "loud"].append(side())
    llm.close()

    rows = []
    for name in sides:
        p99 = {c: [percentile(t, 99) for t in runs[name, c]] for c in ("quiet", "loud")}
        ratios = [b / a for a, b in zip(p99["quiet"], p99["loud"], strict=True)]
        rows.append((name, statistics.median(p99["quiet"]), statistics.median(p99["loud"]), sorted(ratios)))
    if args.json:
        for name, quiet, loud, ratios in rows:
            print(
                json.dumps(
                    {
                        "name": f"step p99, {name}",
                        "unit": "us",
                        "ours": loud,
                        "peer": "quiet",
                        "peer_value": quiet,
                        "ratio": statistics.median(ratios),
                        "machine": os.uname().machine,
                        "command": " ".join(sys.argv),
                    }
                )
            )
        return 0
    print(f"{'step time p99':<26}{'quiet us':>10}{'loud us':>10}{'ratio: median':>15}{'min':>7}{'max':>7}")
    for name, quiet, loud, ratios in rows:
        middle = statistics.median(ratios)
        print(f"{name:<26}{quiet:>10.0f}{loud:>10.0f}{middle:>15.2f}{ratios[0]:>7.2f}{ratios[-1]:>7.2f}")
    for (name, condition), times in runs.items():
        print("\n".join(histogram(f"\n{name}, {condition}", [t for run in times for t in run])))
    if args.plot:
        plot(runs, args.plot)
    return 0


def plot(runs: dict[tuple[str, str], list[list[float]]], path: Path) -> None:
    """Draw the histograms, one panel a side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for name, _ in runs))
    figure, panels = pyplot.subplots(1, len(names), figsize=(11, 4), sharey=True, constrained_layout=True)
    for panel, name in zip(panels, names, strict=True):
        for condition, colour in (("quiet", "tab:blue"), ("loud", "tab:red")):
            times = [t for run in runs[name, condition] for t in run]
            bins = np.geomspace(max(min(times), 1), max(times) * 1.05, 80)
            weights = np.full(len(times), 1 / len(times))
            panel.hist(times, bins=bins, weights=weights, histtype="step", color=colour, label=condition)
        panel.set(xscale="log", yscale="log", title=name, xlabel="step time, microseconds")
    panels[0].set_ylabel("share of steps")
    panels[0].legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
