"""What do the scheduler and the block manager cost per step, without a model behind them?

Microseconds of schedule() + update() per step of decoding sequences, with an empty queue, with 10,000 requests waiting
and with 1% of the sequences cancelled (and replaced) per step; nanoseconds per block taken and given back;
microseconds of a look-up of 32,768 tokens in the prefix cache, of which hashing. All in one thread, without the GIL.

Each figure is the median of `--rounds` rounds in which the configurations take turns, "min" the best round. A round of
steps counts as their mean without the slowest 2%, during which the operating system may have run something else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys

from rvllm._native.blocks import BlockManager
from rvllm._native.driver import BlockDriver, SchedulerDriver
from rvllm._native.scheduler import Scheduler

N_PROMPT, N_OUTPUT, N_STEPS = 128, 1900, 100
AIM_US = {256: 10.0}
AIM_LOOKUP_US = 100.0
N_LOOKUP = 32768


def running(n: int, n_waiting: int = 0, n_blocks: int | None = None) -> SchedulerDriver:
    """A scheduler with n decoding sequences, past their prompts, and n_waiting behind them."""
    need = n * (N_PROMPT + N_OUTPUT) // 16 + 1024
    scheduler = Scheduler(
        BlockManager(n_blocks or need), max_num_seqs=n, max_num_batched_tokens=n * N_PROMPT,
        max_model_len=N_PROMPT + N_OUTPUT + 1, max_queued=20_000,
    )  # fmt: skip
    driver = SchedulerDriver(scheduler)
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
    for name, values in times.items():
        yield f"schedule + update, {name}", "us", values, AIM_US.get(n)


def filled(n_blocks: int) -> BlockDriver:
    """A pool whose blocks are all unreferenced and all hold a cached prefix."""
    driver = BlockDriver(BlockManager(n_blocks))
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
    yield f"take and give back a block, pool of {n_blocks:,}", "ns", values, None
    values = [filled(n_blocks).time_allocate(n_blocks, 1) for _ in range(min(rounds, 5))]
    yield f"the same, evicting a cached one, pool of {n_blocks:,}", "ns", values, None


def lookup_rows(n_blocks: int, rounds: int):
    driver = BlockDriver(BlockManager(n_blocks))
    number = driver.new(range(N_LOOKUP + 1))
    driver.admit(number)
    driver.commit(number, N_LOOKUP)
    results = [driver.time_lookup(number) for _ in range(4 * rounds)]
    assert all(found == N_LOOKUP for found, _, _ in results)
    total, hashing = (sorted(times) for times in list(zip(*results, strict=True))[1:])
    what = f"look-up of {N_LOOKUP:,} tokens, pool of {n_blocks:,}"
    yield f"{what}: all", "us", total, None
    yield f"{what}: hashing alone", "us", hashing, None
    yield f"{what}: besides hashing", "us", [t - h for t, h in zip(total, hashing, strict=True)], AIM_LOOKUP_US


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--running", default="8,64,256,1024", help="numbers of running sequences")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    args = parser.parse_args()

    def rows():
        for n in map(int, args.running.split(",")):
            yield from step_rows(n, args.rounds)
        for n_blocks in (1 << 10, 1 << 16, 1 << 20):
            yield from block_rows(n_blocks, args.rounds)
        for n_blocks in (1 << 12, 1 << 20):
            yield from lookup_rows(n_blocks, args.rounds)

    if not args.json:
        print(f"{'':64}{'median':>10}{'min':>10}{'aim':>8}")
    for name, unit, values, aim in rows():
        ours = statistics.median(values)
        if args.json:
            row = {
                "name": name, "unit": unit, "ours": ours, "peer": "aim" if aim else None, "peer_value": aim,
                "ratio": aim / ours if aim else None, "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
                "command": " ".join(["python", *sys.argv]),
            }  # fmt: skip
            print(json.dumps(row), flush=True)
        else:
            print(f"{name:64}{ours:7.2f} {unit}{min(values):7.2f} {unit}{aim or '':>8}", flush=True)


if __name__ == "__main__":
    main()
