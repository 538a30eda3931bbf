"""`rvllm benchmark`: tokens per second of the engine without HTTP, after its outputs have been checked."""

from __future__ import annotations

import json
import random
import re
import sys
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median

from rvllm.engine import Engine
from rvllm.engine_config import EngineConfig
from rvllm.errors import RvllmError
from rvllm.handle import RequestHandle
from rvllm.llm import LLM
from rvllm.request import Chunk, SamplingParams, TokenLogprob

TIE = 0.1  # in log-probability: what 16-bit activations leave undecided


_NEAR = 16  # steps on either side of one: as many more tokens of context as change its time by less than 1%


@dataclass(frozen=True, slots=True)
class Row:
    """One batch: medians over the repetitions, times in ms. None: no step ran in which all decode."""

    n: int
    prompt_len: int
    tokens_per_s: float
    variation: float  # (max - min) / median over the repetitions
    ms: float  # from the first submission to the last token
    ttft_ms: float  # median over requests
    decode_per_s: float | None  # tokens/s of the steps in which all of them decode
    step_ms: float | None  # median of these steps
    step_spread: float | None  # see spread()
    prefix_hits: int  # prompt tokens found in the cache; 0 when prompts are fresh


class StepTimes:
    """When the tokens of a round came, by the engine's clock: a step gives all of its tokens one time."""

    def __init__(self) -> None:
        self._n_tokens: dict[float, int] = {}

    def note(self, handle: RequestHandle, n_tokens: int) -> None:
        """Count the tokens of one update; of several steps in one update only the last one's time is known."""
        if handle.last_token is not None:
            self._n_tokens[handle.last_token] = self._n_tokens.get(handle.last_token, 0) + n_tokens

    def decodes(self, n: int) -> list[float]:
        """Return the seconds of each step in which `n` sequences decoded, all of them already in the step before."""
        ends = sorted(self._n_tokens.items())
        return [b[0] - a[0] for a, b in pairwise(ends) if a[1] == b[1] == n]


def spread(steps: list[float]) -> float:
    """Return (p99 - p50) / p50 of step times, each first divided by the median of its neighbours.

    Contexts grow while a batch decodes, which alone makes the steps of a round differ by some percent; among
    2 * _NEAR + 1 neighbours it does not.
    """
    flat = sorted(t / median(steps[max(0, i - _NEAR) : i + _NEAR + 1]) for i, t in enumerate(steps))
    return flat[int(len(flat) * 0.99)] / flat[len(flat) // 2] - 1


def check_outputs(llm: LLM, prompt_len: int, output_len: int, n: int, rng: random.Random) -> str | None:
    """Compare greedy outputs of a batch with each prompt run alone; return what differs, or None.

    A fast path that skips work, or a row that depends on its neighbours, changes tokens here. Where another batch may
    mean another order of sums (a GPU without --batch-invariant), a token may differ whose logit is as good as equal.
    """
    config = llm.engine.config
    exact = config.device == "cpu" or config.batch_invariant
    prompts = _prompts(llm, n, prompt_len, rng)
    n_alternatives = None if exact else config.max_logprobs
    params = SamplingParams(temperature=0.0, max_tokens=output_len, ignore_eos=True, logprobs=n_alternatives)
    together = [o.choices[0].token_ids for o in llm.generate(prompts, params)]
    for i, prompt in enumerate(prompts):
        alone = llm.generate([prompt], params)[0].choices[0]
        if len(alone.token_ids) != output_len:
            return f"prompt {i} gave {len(alone.token_ids)} tokens instead of {output_len}"
        pairs = zip(alone.token_ids, together[i], strict=False)
        at = next((j for j, (a, b) in enumerate(pairs) if a != b), None)
        if at is None:
            continue
        gap = _gap(alone.logprobs[at], together[i][at]) if alone.logprobs else None
        if gap is None or gap > TIE:
            short = "" if gap is None else f" (by {gap:.2f} in log-probability)"
            return f"prompt {i} of {n} differs from token {at} on when it is run alone{short}"
    return None


def _gap(chosen: TokenLogprob, other: int) -> float | None:
    """Return by how much less likely `other` was than the chosen token; None when it is not among the alternatives."""
    return next((chosen.logprob - logprob for token, logprob in chosen.top if token == other), None)


def measure(llm: LLM, n: int, prompt_len: int, output_len: int, repeat: int, params: SamplingParams, rng) -> Row:
    """Time `repeat` rounds of `n` fresh prompts each: from the first submission to the last token."""
    seconds, ttfts, steps = [], [], []
    hits = llm.engine.stats().prefix_hits
    for round_ in range(repeat + 1):
        prompts = _prompts(llm, n, prompt_len, rng)
        times = StepTimes()
        start = time.perf_counter()
        handles = _run(llm.engine, prompts, params, times)
        if round_ == 0:  # warm-up
            continue
        seconds.append(time.perf_counter() - start)
        ttfts += [h.first_token - h.arrival for h in handles if h.first_token is not None]
        steps.append(times.decodes(n))
    seconds.sort()
    middle = median(seconds)
    every = [t for of_round in steps for t in of_round]
    return Row(
        n=n,
        prompt_len=prompt_len,
        tokens_per_s=n * output_len / middle,
        variation=(seconds[-1] - seconds[0]) / middle,
        ms=middle * 1e3,
        ttft_ms=median(ttfts) * 1e3,
        decode_per_s=n * len(every) / sum(every) if every else None,
        step_ms=median(every) * 1e3 if every else None,
        step_spread=median(spread(of_round) for of_round in steps) if all(steps) else None,
        prefix_hits=llm.engine.stats().prefix_hits - hits,
    )


def _run(engine: Engine, prompts: list[list[int]], params: SamplingParams, times: StepTimes) -> list[RequestHandle]:
    def on_update(handle: RequestHandle, chunks: list[Chunk]) -> None:
        times.note(handle, sum(len(c.token_ids) for c in chunks))

    with engine.together():
        handles = [engine.submit(p, params, on_update=on_update) for p in prompts]
    while engine.n_unfinished:
        engine.poll()
    return handles


def _prompts(llm: LLM, n: int, length: int, rng: random.Random) -> list[list[int]]:
    return [[rng.randrange(llm.engine.vocab_size) for _ in range(length)] for _ in range(n)]


def parse_batches(text: str, prompt_len: int) -> list[tuple[int, int]]:
    """Return (prompts, tokens of each) of a list such as 1,16,16x2048. Raises RvllmError."""
    batches = []
    for item in text.split(","):
        found = re.fullmatch(r"(\d+)(?:x(\d+))?", item.strip())
        batch = found and (int(found[1]), int(found[2] or prompt_len))
        if not batch or min(batch) < 1:
            raise RvllmError(f"--n {text!r} is not a list of batch sizes such as 1,4,16 or 1x128,16x2048")
        batches.append(batch)
    return batches


def run(
    config: EngineConfig,
    *,
    batches: list[tuple[int, int]],
    output_len: int = 256,
    repeat: int = 3,
    temperature: float = 0.0,
    top_p: float = 1.0,
    as_json: bool = False,
    progress=None,
) -> int:
    """Check, measure and print one row per (prompts, tokens of each). Return the exit code: 1 when a check failed."""
    llm = LLM(**asdict(config), progress=progress, skip_tokenizer=True)
    params = SamplingParams(temperature=temperature, top_p=top_p, max_tokens=output_len, ignore_eos=True, seed=1)
    rng = random.Random(config.seed)
    limit = llm.engine.max_model_len
    longest = max(length for _, length in batches)
    at_once = llm.engine.loaded.sizes.max_num_seqs + config.max_num_queued_reqs
    try:
        if longest + output_len > limit:
            raise RvllmError(
                f"a prompt of {longest} tokens and --output-len {output_len} do not fit the context of {limit} tokens"
            )
        if (most := max(n for n, _ in batches)) > at_once:
            raise RvllmError(f"--n {most}: the engine takes {at_once} requests at once; raise --max-num-queued-reqs")
        if not as_json:
            print("".join(f"{head:>{width}}" for head, width in _HEADS), flush=True)
        for n, prompt_len in batches:
            wrong = check_outputs(llm, prompt_len, min(output_len, 16), min(n, 4), rng)
            if wrong:
                print(f"N={n}: no figure, the output check failed: {wrong}", file=sys.stderr)
                return 1
            row = measure(llm, n, prompt_len, output_len, repeat, params, rng)
            print(_json(row, output_len) if as_json else _line(row), flush=True)
    finally:
        llm.close()
    return 0


_HEADS = (
    *(("N", 5), ("prompt", 7), ("tokens/s", 10), ("+-", 7), ("ms", 9), ("TTFT ms", 9)),
    *(("decode/s", 10), ("step ms", 9), ("spread", 10), ("hits", 6)),
)


def _line(row: Row) -> str:
    return (
        f"{row.n:>5}{row.prompt_len:>7}{row.tokens_per_s:>10.1f}{row.variation:>7.1%}{row.ms:>9.1f}{row.ttft_ms:>9.1f}"
        f"{_cell(row.decode_per_s, '.1f'):>10}{_cell(row.step_ms, '.3f'):>9}{_cell(row.step_spread, '.2%'):>10}"
        f"{row.prefix_hits:>6}"
    )


def _cell(value: float | None, digits: str) -> str:
    return "-" if value is None else f"{value:{digits}}"


def _json(row: Row, output_len: int) -> str:
    head = {"name": f"{row.n} prompts of {row.prompt_len} tokens, {output_len} out", "unit": "tokens/s"}
    figures = {k: round(v, 4) for k, v in asdict(row).items() if v is not None}
    return json.dumps(head | {"ours": figures["tokens_per_s"]} | figures)
