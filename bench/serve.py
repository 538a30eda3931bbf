"""What HTTP costs: streams of one server, beside the same engine without HTTP.

    python bench/serve.py                        # a 32M model with random weights, one engine thread
    python bench/serve.py --model DIR --streams 1,64 --path /v1/completions
    python bench/serve.py --shape 7b --device cuda --streams 1,32,256 --tokens 256 [--temperature 0.8 --top-p 0.95]

With one engine thread and two processors or more, the engine gets the first processor for itself (also when it runs
without HTTP), and the event loop and the client share the second. "loop us" is processor time of the server's
event-loop thread per token, everything included; inter-token times are between two tokens as the client receives them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from random_models import SHAPES, write_model

ENGINE_CPU, LOOP_CPU = 0, 1  # indices into the processors that may be used


# ---- the engine without HTTP -------------------------------------------------------------------------------


def engine_alone(model: str, settings: dict, n: int, sampling: dict, prompt: list[int]) -> float:
    """Return tokens per second of `n` equal requests in this process."""
    from rvllm import LLM, SamplingParams

    params = SamplingParams(**sampling)
    n_tokens = sampling["max_tokens"]
    with LLM(model, **settings) as llm:
        rates = []
        for _ in range(4):
            start = time.perf_counter()
            llm.generate([prompt] * n, params)
            rates.append(n * n_tokens / (time.perf_counter() - start))
    return statistics.median(rates[1:])


# ---- the server ----------------------------------------------------------------------------------------------


class Server:
    """`rvllm serve` as a process."""

    def __init__(self, argv: list[str]):
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "rvllm",
                "serve",
                *argv,
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--disable-log-stats",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        log = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            log += line
            if found := re.search(r"listening on http://127.0.0.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise RuntimeError(log)

    def pin(self, engine: int, rest: int) -> None:
        """Give the engine's threads one processor and all others another."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        for task in tasks.iterdir():
            is_engine = (task / "comm").read_text().startswith("rvllm-")
            os.sched_setaffinity(int(task.name), {engine if is_engine else rest})

    def loop_seconds(self) -> float:
        """Return the processor time of the main thread, which runs the event loop."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) * 1e-9

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate()


# ---- the client ----------------------------------------------------------------------------------------------


class Stream(asyncio.Protocol):
    """One streamed request on a connection of its own: notes when events come, and looks into none of them."""

    def __init__(self, request: bytes):
        self.request = request
        self.done = asyncio.get_running_loop().create_future()
        self.times: list[float] = []
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.started = time.perf_counter()
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        n_events = data.count(b"data: ")
        if n_events:
            self.times += [time.perf_counter()] * n_events
        self.tail = (self.tail + data)[-32:]
        if b"[DONE]" in self.tail and not self.done.done():
            self.done.set_result(None)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("the server closed the connection"))


async def run_streams(port: int, path: str, body: dict, n: int) -> tuple[float, list[Stream]]:
    """Run `n` streams at once; return the seconds from the first request to the last token."""
    payload = json.dumps(body).encode()
    request = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    streams = [(await loop.create_connection(lambda: Stream(request), "127.0.0.1", port))[1] for _ in range(n)]
    await asyncio.gather(*(s.done for s in streams))
    return time.perf_counter() - start, streams


def measure(server: Server, path: str, body: dict, n: int, n_tokens: int, repeat: int) -> dict[str, float]:
    """Return the medians of one row."""
    rounds = []
    for i in range(repeat + 1):
        before = server.loop_seconds()
        seconds, streams = asyncio.run(run_streams(server.port, path, body, n))
        loop_us = (server.loop_seconds() - before) * 1e6 / (n * n_tokens)
        gaps = sorted(b - a for s in streams for a, b in zip(s.times[1:], s.times[2:-1], strict=False)) or [0.0]
        first = sorted(s.times[1 if "chat" in path else 0] - s.started for s in streams)
        if i:
            rounds.append(
                {
                    "tokens_per_s": n * n_tokens / seconds,
                    "loop_us": loop_us,
                    "ttft_ms": first[len(first) // 2] * 1e3,
                    "itl_p50_ms": gaps[len(gaps) // 2] * 1e3,
                    "itl_p99_ms": gaps[int(len(gaps) * 0.99)] * 1e3,
                }
            )
    return {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}


@contextlib.contextmanager
def model_directory(args: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """Give a model directory and its settings; without --model, random weights."""
    if args.model is not None:
        yield args.model, {}
        return
    with tempfile.TemporaryDirectory() as directory:
        yield write_model(directory, args.shape, tokenizer=True), {"load_format": "dummy"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory (default: --shape with random weights)")
    parser.add_argument("--shape", default="32m", choices=sorted(SHAPES))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--streams", default="1,16,64")
    parser.add_argument("--tokens", type=int, default=128, help="output tokens per stream")
    parser.add_argument("--threads", type=int, default=1, help="of the engine")
    parser.add_argument("--path", default="/v1/completions", choices=["/v1/completions", "/v1/chat/completions"])
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    cpus = sorted(os.sched_getaffinity(0))
    pinned = args.device == "cpu" and args.threads == 1 and len(cpus) > 1
    sampling = {"temperature": args.temperature, "top_p": args.top_p, "ignore_eos": True, "max_tokens": args.tokens}
    prompt = list(range(40, 72))
    body: dict = {"stream": True, **sampling}
    body |= {"messages": [{"role": "user", "content": "Hello"}]} if "chat" in args.path else {"prompt": prompt}
    sizes = [int(n) for n in args.streams.split(",")]
    with model_directory(args) as (model, settings):
        settings |= {"device": args.device, "max_num_seqs": max(64, *sizes)}
        if args.device == "cpu":
            settings["threads"] = args.threads
        alone = {}
        for n in sizes:
            call = f"engine_alone({model!r}, {settings!r}, {n}, {sampling!r}, {prompt})"
            code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import serve; print(serve.{call})"
            alone[n] = float(
                subprocess.run(
                    [sys.executable, "-c", code],
                    stdout=subprocess.PIPE,
                    check=True,
                    preexec_fn=(lambda: os.sched_setaffinity(0, {cpus[ENGINE_CPU]})) if pinned else None,
                ).stdout
            )
        argv = [model, *(w for k, v in settings.items() for w in (f"--{k.replace('_', '-')}", str(v)))]
        server = Server(argv)
        try:
            if pinned:
                server.pin(cpus[ENGINE_CPU], cpus[LOOP_CPU])
                os.sched_setaffinity(0, {cpus[LOOP_CPU]})
            if not args.json:
                heads = ("tokens/s", "alone", "ratio", "loop us", "TTFT ms", "ITL p50", "ITL p99")
                print(f"{'streams':>8}" + "".join(f"{h:>10}" for h in heads))
            for n in sizes:
                report(n, measure(server, args.path, body, n, args.tokens, args.repeat), alone[n], args.json)
        finally:
            server.stop()
    return 0


def report(n: int, row: dict[str, float], alone: float, as_json: bool) -> None:
    """Print one row."""
    ratio = row["tokens_per_s"] / alone
    if as_json:
        head = {"name": f"HTTP {n} streams", "unit": "tokens/s", "ours": row["tokens_per_s"]}
        peer = {"peer": "the engine without HTTP", "peer_value": alone, "ratio": ratio}
        print(json.dumps({**head, **peer, **row, "machine": os.uname().machine, "command": " ".join(sys.argv)}))
        return
    cells = (row["tokens_per_s"], alone, ratio, row["loop_us"], row["ttft_ms"], row["itl_p50_ms"], row["itl_p99_ms"])
    digits = (0, 0, 2, 1, 1, 2, 2)
    print(f"{n:>8}" + "".join(f"{c:>10.{d}f}" for c, d in zip(cells, digits, strict=True)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
