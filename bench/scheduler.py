"""What do the scheduler and the block manager cost per step, without a model behind them?

Microseconds of schedule() + update() per step of decoding sequences, with an empty queue, with 10,000 requests waiting,
with 1% of the sequences cancelled (and replaced) per step, and with a second tier into which every block that is taken
moves a cached one; nanoseconds per block taken and given back; microseconds of a look-up of 32,768 tokens in the prefix
cache, of which hashing. All in one thread, without the GIL.

Each figure is the median of `--rounds` rounds in which the configurations take turns, "min" the best round. A round of
steps counts as their mean without the slowest 2%, during which the operating system may have run something else.
`--vllm PYTHON` names an interpreter that can import vLLM (no GPU needed): its scheduler then takes turns with ours,
under one load (bench/vllm_scheduler.py); in those rows a round counts as its median step, on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rvllm._native.block_driver import BlockDriver
from rvllm._native.blocks import BlockManager
from rvllm._native.scheduler import Scheduler
from rvllm._native.scheduler_driver import SchedulerDriver

N_PROMPT, N_OUTPUT, N_STEPS = 128, 1900, 100
AIM_US = {256: 10.0}
AIM_LOOKUP_US = 100.0
N_LOOKUP = 32768


@dataclass
class Row:
    """A figure in rounds, what it should be, and the same of vLLM's scheduler where that was measured."""

    name: str
    unit: str
    values: list[float]
    aim: float | None = None
    peer: list[float] | None = None

    def json(self) -> str:
        ours, theirs = statistics.median(self.values), self.aim
        if self.peer:
            theirs = statistics.median(self.peer)
        row = {
            "name": self.name, "unit": self.unit, "ours": ours, "peer": "vLLM" if self.peer else self.aim and "aim",
            "peer_value": theirs, "ratio": theirs and theirs / ours,
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs", "command": " ".join(["python", *sys.argv]),
        }  # fmt: skip
        return json.dumps(row)

    def text(self) -> str:
        ours, unit = statistics.median(self.values), self.unit
        line = f"{self.name:72}{ours:9.2f} {unit}{min(self.values):9.2f} {unit}{self.aim or '':>8}"
        if self.peer:
            theirs = statistics.median(self.peer)
            line += f"   vLLM {theirs:9.2f} {unit}, {theirs / ours:.0f}x"
        return line


class Vllm:
    """vLLM's scheduler in a process of its own."""

    def __init__(self, python: str, n: int, n_waiting: int):
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        program = Path(__file__).with_name("vllm_scheduler.py")
        self.process = subprocess.Popen(
            [python, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self._send(f"{n} {n_waiting} {N_PROMPT} {N_OUTPUT}")
        self.steps(20, 0)

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def steps(self, n_steps: int, n_cancel: float) -> list[int]:
        """Nanoseconds of each step."""
        assert self.process.stdout is not None
        try:
            self._send(f"{n_steps} {n_cancel}")
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            self.process.wait()
            self.log.seek(0)
            raise RuntimeError((self.log.read().strip() or "it ended").splitlines()[-1]) from None

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def running(n: int, n_waiting: int = 0, n_blocks: int | None = None, n_host_blocks: int = 0) -> SchedulerDriver:
    """A scheduler with n decoding sequences, past their prompts, and n_waiting behind them.

    With a second tier, all the blocks that are free hold cached content, of prompts that have ended.
    """
    need = n * (N_PROMPT + N_OUTPUT) // 16 + 1024
    scheduler = Scheduler(
        BlockManager(n_blocks or need, n_host_blocks=n_host_blocks),
        max_num_seqs=n,
        max_num_batched_tokens=n * N_PROMPT,
        max_model_len=N_PROMPT + N_OUTPUT + 1,
        max_queued=20_000,
    )
    driver = SchedulerDriver(scheduler)
    if n_host_blocks:
        for _ in range(need // n // (N_PROMPT // 16) + 1):
            driver.fill(n, N_PROMPT, 1)
            driver.time_steps(1)
    driver.fill(n + n_waiting, N_PROMPT, N_OUTPUT)
    driver.time_steps(20)
    return driver


def step_rows(n: int, rounds: int):
    """Microseconds per step, one row per load."""
    loads = {
        f"{n} running": (running(n), 0),
        f"{n} running, 10,000 waiting": (running(n, 10_000), 0),
        f"{n} running, pool of 1,048,576 blocks": (running(n, n_blocks=1 << 20), 0),
        f"{n} running, 10,000 waiting, 1% cancelled": (running(n, 10_000), n / 100),
        f"{n} running, each new block swaps one out": (running(n, n_host_blocks=1 << 16), 0),
    }
    times: dict[str, list[float]] = {name: [] for name in loads}
    for _ in range(rounds):
        for name, (driver, n_cancel) in loads.items():
            steps = sorted(driver.time_steps(N_STEPS, n_cancel, N_PROMPT, N_OUTPUT))
            times[name].append(statistics.fmean(steps[: N_STEPS - N_STEPS // 50]) / 1e3)
    for driver, _ in loads.values():
        driver.check()
        assert driver.scheduler.n_running == n and driver.scheduler.n_preemptions == 0
        assert driver.scheduler.n_prefix_hits == 0, "the prompts are not fresh"
        blocks = driver.scheduler.blocks
        assert (blocks.n_swapped_out > n * N_STEPS // 16) == (blocks.n_host_blocks > 0)
    for name, values in times.items():
        yield Row(f"schedule + update, {name}", "us", values, AIM_US.get(n))


def vllm_rows(python: str, n: int, rounds: int):
    """The same steps next to vLLM's, in turns."""
    ours, theirs = running(n, 10_000), Vllm(python, n, 10_000)
    loads = {f"{n} running, 10,000 waiting": 0, f"{n} running, 10,000 waiting, 1% cancelled": n / 100}
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in loads}
    for _ in range(rounds):
        for name, n_cancel in loads.items():
            times[name][0].append(statistics.median(ours.time_steps(N_STEPS, n_cancel, N_PROMPT, N_OUTPUT)) / 1e3)
            times[name][1].append(statistics.median(theirs.steps(N_STEPS, n_cancel)) / 1e3)
    theirs.close()
    for name, (values, peer) in times.items():
        yield Row(f"schedule + update, {name}", "us", values, None, peer)


def filled(n_blocks: int, n_host_blocks: int = 0) -> BlockDriver:
    """A pool whose blocks are all unreferenced and all hold a cached prefix."""
    driver = BlockDriver(BlockManager(n_blocks, n_host_blocks=n_host_blocks), max_moves=n_host_blocks)
    length = 16 * min(n_blocks, 1024)
    numbers = []
    for k in range(n_blocks // 1024 or 1):
        numbers.append(driver.new(range(k << 16, (k << 16) + length)))
        driver.admit(numbers[-1])
        driver.commit(numbers[-1], length)
    for number in numbers:
        driver.release(number)
    return driver


def block_rows(n_blocks: int, rounds: int):
    empty = BlockDriver(BlockManager(n_blocks))
    values = [empty.time_allocate(n_blocks, max(1, (1 << 20) // n_blocks)) for _ in range(rounds + 1)][1:]
    yield Row(f"take and give back a block, pool of {n_blocks:,}", "ns", values)
    values = [filled(n_blocks).time_allocate(n_blocks, 1) for _ in range(min(rounds, 5))]
    yield Row(f"the same, evicting a cached one, pool of {n_blocks:,}", "ns", values)
    values = [filled(n_blocks, n_blocks).time_allocate(n_blocks, 1) for _ in range(min(rounds, 5))]
    yield Row(f"the same, moving it to the second tier, pool of {n_blocks:,}", "ns", values)


def lookup_rows(n_blocks: int, rounds: int):
    driver = BlockDriver(BlockManager(n_blocks))
    number = driver.new(range(N_LOOKUP + 1))
    driver.admit(number)
    driver.commit(number, N_LOOKUP)
    results = [driver.time_lookup(number) for _ in range(4 * rounds)]
    assert all(found == N_LOOKUP for found, _, _ in results)
    total, hashing = (sorted(times) for times in list(zip(*results, strict=True))[1:])
    what = f"look-up of {N_LOOKUP:,} tokens, pool of {n_blocks:,}"
    yield Row(f"{what}: all", "us", total)
    yield Row(f"{what}: hashing alone", "us", hashing)
    yield Row(f"{what}: besides hashing", "us", [t - h for t, h in zip(total, hashing, strict=True)], AIM_LOOKUP_US)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--running", default="8,64,256,1024", help="numbers of running sequences")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--vllm", metavar="PYTHON", help="interpreter of an environment with vLLM")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    args = parser.parse_args()

    def rows():
        for n in map(int, args.running.split(",")):
            yield from step_rows(n, args.rounds)
        for n_blocks in (1 << 10, 1 << 16, 1 << 20):
            yield from block_rows(n_blocks, args.rounds)
        for n_blocks in (1 << 12, 1 << 20):
            yield from lookup_rows(n_blocks, args.rounds)
        if args.vllm:
            yield from vllm_rows(args.vllm, 256, args.rounds)

    if not args.json:
        print(f"{'':72}{'median':>12}{'min':>12}{'aim':>8}")
    try:
        for row in rows():
            print(row.json() if args.json else row.text(), flush=True)
    except (RuntimeError, OSError) as e:
        print(f"vLLM's scheduler was not measured: {e}", file=sys.stderr)
    if not args.vllm:
        print("vLLM's scheduler was not measured: --vllm names an interpreter that has it", file=sys.stderr)


if __name__ == "__main__":
    main()
