"""What HTTP costs: requests to one server, beside the same engine without HTTP.

    python bench/serve.py                        # a 32M model with random weights, one engine thread
    python bench/serve.py --model DIR --rows 1,64 --path /v1/completions
    python bench/serve.py --shape 7b --device cuda --rows 1,256,200:32,1024x64 --tokens 256 [--temperature 0.8]

A row is REQUESTS, all at once; REQUESTS:N, at most N unanswered at a time; with xTOKENS their output tokens. Every
request has a prompt of its own, fresh in every round ("hits": prompt tokens found in the prefix cache, on both sides).

"loop us" is processor time of the server's event-loop thread per token, everything included. Inter-token times (ITL)
are between two tokens of one stream as the client receives them, over all rounds: "longest" is the longest of them,
"worst" the largest p99 / p50 of a round, "slow" the share of those above 1.3 times the median that began before every
stream had its first token, "later" the share of those that began behind. "lag" is the 99th percentile of what the
client itself adds. With one engine thread and two processors or more, the engine gets the first processor for itself
(also without HTTP), and the event loop and the client share the second.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import http_load
from random_models import SHAPES, write_model

ENGINE_CPU, LOOP_CPU = 0, 1  # indices into the processors that may be used
SLOW = 1.3  # times the median: an inter-token time that a reader may notice
FIRST_TOKEN_ID = 256  # of a prompt: a byte of its own would be no text


@dataclass(frozen=True, slots=True)
class Row:
    """What to send: `n` requests, at most `at_a_time` of them unanswered, for `n_tokens` each."""

    n: int
    at_a_time: int
    n_tokens: int
    prompt_len: int

    @staticmethod
    def parse(text: str, n_tokens: int, prompt_len: int) -> Row:
        found = re.fullmatch(r"(\d+)(?::(\d+))?(?:x(\d+))?", text)
        if found is None:
            raise SystemExit(f"--rows: {text!r} is not a row such as 256, 200:32 or 1024x64")
        n = int(found[1])
        return Row(n, min(n, int(found[2] or n)), int(found[3] or n_tokens), prompt_len)

    def __str__(self) -> str:
        return f"{self.n}{f':{self.at_a_time}' if self.at_a_time < self.n else ''}x{self.n_tokens}"

    def prompts(self, rng: random.Random, vocab_size: int) -> list[list[int]]:
        ids = range(FIRST_TOKEN_ID, vocab_size)
        return [rng.choices(ids, k=self.prompt_len) for _ in range(self.n)]


# ---- the engine without HTTP -------------------------------------------------------------------------------


def engine_alone(model: str, settings: dict, rows: list[dict], sampling: dict, repeat: int) -> list[dict]:
    """Return tokens per second and prefix hits of each row, run in this process."""
    from rvllm import LLM, SamplingParams

    rng = random.Random(1)
    results = []
    with LLM(model, **settings) as llm:
        for row in (Row(**r) for r in rows):
            params = SamplingParams(**sampling, max_tokens=row.n_tokens)
            hits = llm.engine.stats().prefix_hits
            rates = [_rate(llm.engine, row, params, row.prompts(rng, llm.engine.vocab_size)) for _ in range(repeat + 1)]
            hits = llm.engine.stats().prefix_hits - hits
            results.append({"tokens_per_s": statistics.median(rates[1:]), "hits": hits})
    return results


def _rate(engine, row: Row, params, prompts: list[list[int]]) -> float:
    todo = deque(prompts)

    def submit() -> None:
        engine.submit(todo.popleft(), params, on_update=on_update)

    def on_update(handle, chunks) -> None:
        if handle.finished and todo:
            submit()

    start = time.perf_counter()
    for _ in range(row.at_a_time):
        submit()
    while engine.n_unfinished:
        engine.poll()
    return row.n * row.n_tokens / (time.perf_counter() - start)


# ---- the server ----------------------------------------------------------------------------------------------


class Server:
    """`rvllm serve` as a process."""

    def __init__(self, argv: list[str]):
        words = [*argv, "--host", "127.0.0.1", "--port", "0", "--disable-log-stats"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rvllm", "serve", *words],
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

    def prefix_hits(self) -> int:
        """Return how many prompt tokens were found in the prefix cache so far."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/metrics")
        found = re.search(rb"^vllm:prefix_cache_hits_total\S* (\S+)", connection.getresponse().read(), re.MULTILINE)
        connection.close()
        assert found is not None
        return int(float(found[1]))

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate()


def http_requests(path: str, row: Row, sampling: dict, rng: random.Random, vocab_size: int) -> list[bytes]:
    """Return the requests of one round."""
    out = []
    for prompt in row.prompts(rng, vocab_size):
        body: dict = {"stream": True, "max_tokens": row.n_tokens, **sampling}
        if "chat" in path:
            body["messages"] = [{"role": "user", "content": f"{rng.getrandbits(64):x}"}]
        else:
            body["prompt"] = prompt
        payload = json.dumps(body).encode()
        out.append(f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload)
    return out


# ---- measuring -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Round:
    """One round as the client saw it, in seconds."""

    seconds: float
    loop_s: float
    first: list[float]  # from the request to its first token
    ramp: list[float]  # inter-token times before every stream had its first token
    steady: list[float]  # and behind it
    lags: list[float]


def one_round(server: Server, row: Row, requests: list[bytes], n_before: int) -> Round:
    """Run one round; `n_before` events of an answer come before its first token."""
    loop_s = server.loop_seconds()
    load = http_load.run(server.port, requests, row.at_a_time)
    loop_s = server.loop_seconds() - loop_s
    tokens = [t.events[n_before:-1] for t in load.requests]  # without [DONE]
    all_started = max(t[0] for t in tokens[: row.at_a_time])
    ramp: list[float] = []
    steady: list[float] = []
    for times in tokens:
        for a, b in pairwise(times):
            (ramp if a < all_started else steady).append(b - a)
    first = [t[0] - r.sent for t, r in zip(tokens, load.requests, strict=True)]
    return Round(load.ended - load.started, loop_s, first, ramp, steady, load.lags)


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` of `values` lie; 0 of none."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def summarise(row: Row, rounds: list[Round]) -> dict[str, float]:
    """Return the figures of one row."""
    n_tokens = row.n * row.n_tokens
    gaps = [g for r in rounds for g in r.ramp + r.steady]
    p50 = percentile(gaps, 0.5)
    first = [t for r in rounds for t in r.first]
    per_round = [r.ramp + r.steady for r in rounds]
    worst = max((percentile(g, 0.99) / percentile(g, 0.5) for g in per_round if g), default=0.0)
    return {
        "tokens_per_s": statistics.median(n_tokens / r.seconds for r in rounds),
        "loop_us": statistics.median(r.loop_s for r in rounds) * 1e6 / n_tokens,
        "ttft_p50_ms": percentile(first, 0.5) * 1e3,
        "ttft_p99_ms": percentile(first, 0.99) * 1e3,
        "itl_p50_ms": p50 * 1e3,
        "itl_p99_ms": percentile(gaps, 0.99) * 1e3,
        "itl_max_ms": max(gaps, default=0.0) * 1e3,
        "worst_p99_over_p50": worst,
        "slow_ramp": sum(g > SLOW * p50 for r in rounds for g in r.ramp) / max(len(gaps), 1),
        "slow_steady": sum(g > SLOW * p50 for r in rounds for g in r.steady) / max(len(gaps), 1),
        "client_lag_ms": percentile([lag for r in rounds for lag in r.lags], 0.99) * 1e3,
    }


COLUMNS = {  # head: (key, digits, factor)
    "tokens/s": ("tokens_per_s", 0, 1),
    "alone": ("alone", 0, 1),
    "ratio": ("ratio", 2, 1),
    "hits": ("hits", 0, 1),
    "loop us": ("loop_us", 1, 1),
    "TTFT p50": ("ttft_p50_ms", 1, 1),
    "p99": ("ttft_p99_ms", 1, 1),
    "ITL p50": ("itl_p50_ms", 2, 1),
    " p99": ("itl_p99_ms", 2, 1),
    "longest": ("itl_max_ms", 1, 1),
    "worst": ("worst_p99_over_p50", 2, 1),
    "slow %": ("slow_ramp", 2, 100),
    "later %": ("slow_steady", 2, 100),
    "lag": ("client_lag_ms", 2, 1),
}


def report(row: Row, figures: dict[str, float], as_json: bool) -> None:
    """Print one row."""
    if as_json:
        head = {"name": f"HTTP {row}", "unit": "tokens/s", "ours": figures["tokens_per_s"]}
        peer = {"peer": "the engine without HTTP", "peer_value": figures["alone"]}
        print(json.dumps({**head, **peer, **figures, "machine": os.uname().machine, "command": " ".join(sys.argv)}))
        return
    cells = (f"{figures[key] * factor:>9.{digits}f}" for key, digits, factor in COLUMNS.values())
    print(f"{row!s:>12}" + "".join(cells), flush=True)


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
    parser.add_argument("--rows", default="1,16,64")
    parser.add_argument("--tokens", type=int, default=128, help="output tokens per request")
    parser.add_argument("--prompt-len", type=int, default=32, help="tokens")
    parser.add_argument("--threads", type=int, default=1, help="of the engine")
    parser.add_argument("--path", default="/v1/completions", choices=["/v1/completions", "/v1/chat/completions"])
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    cpus = sorted(os.sched_getaffinity(0))
    pinned = args.device == "cpu" and args.threads == 1 and len(cpus) > 1
    sampling = {"temperature": args.temperature, "top_p": args.top_p, "ignore_eos": True}
    rows = [Row.parse(text, args.tokens, args.prompt_len) for text in args.rows.split(",")]
    rng = random.Random(0)
    with model_directory(args) as (model, settings):
        vocab_size = json.loads((Path(model) / "config.json").read_text())["vocab_size"]
        most = max(64, *(min(row.at_a_time, 256) for row in rows))
        settings |= {"device": args.device, "max_num_seqs": most}
        if args.device == "cpu":
            settings["threads"] = args.threads
        call = f"engine_alone({model!r}, {settings!r}, {[asdict(r) for r in rows]!r}, {sampling!r}, {args.repeat})"
        code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import json, serve; "
        alone = json.loads(
            subprocess.run(
                [sys.executable, "-c", f"{code}print(json.dumps(serve.{call}))"],
                stdout=subprocess.PIPE,
                check=True,
                preexec_fn=(lambda: os.sched_setaffinity(0, {cpus[ENGINE_CPU]})) if pinned else None,
            ).stdout
        )
        server = Server([model, *(w for k, v in settings.items() for w in (f"--{k.replace('_', '-')}", str(v)))])
        try:
            if pinned:
                server.pin(cpus[ENGINE_CPU], cpus[LOOP_CPU])
                os.sched_setaffinity(0, {cpus[LOOP_CPU]})
            if not args.json:
                print(f"{'requests':>12}" + "".join(f"{head:>9}" for head in COLUMNS), flush=True)
            for row, by_itself in zip(rows, alone, strict=True):
                hits = server.prefix_hits()
                rounds = []
                for _ in range(args.repeat + 1):
                    requests = http_requests(args.path, row, sampling, rng, vocab_size)
                    rounds.append(one_round(server, row, requests, int("chat" in args.path)))
                figures = summarise(row, rounds[1:])
                figures["alone"] = by_itself["tokens_per_s"]
                figures["ratio"] = figures["tokens_per_s"] / figures["alone"]
                figures["hits"] = server.prefix_hits() - hits + by_itself["hits"]
                report(row, figures, args.json)
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
