"""`rvllm benchmark`: tokens per second of the engine without HTTP, after its outputs have been checked."""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import asdict, dataclass

from rvllm.engine_config import EngineConfig
from rvllm.errors import RvllmError
from rvllm.llm import LLM
from rvllm.request import SamplingParams, TokenLogprob

TIE = 0.1  # in log-probability: what 16-bit activations leave undecided


@dataclass(frozen=True, slots=True)
class Row:
    """One batch size: medians over the repetitions."""

    n: int
    tokens_per_s: float
    spread: float  # (max - min) / median over the repetitions
    ttft_ms: float  # median over requests
    prefix_hits: int  # prompt tokens found in the cache; 0 when prompts are fresh


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
    rates, ttfts = [], []
    hits = llm.engine.stats().prefix_hits
    for round_ in range(repeat + 1):
        prompts = _prompts(llm, n, prompt_len, rng)
        start = time.perf_counter()
        outputs = llm.generate(prompts, params)
        seconds = time.perf_counter() - start
        if round_ == 0:  # warm-up
            continue
        rates.append(sum(len(o.choices[0].token_ids) for o in outputs) / seconds)
        ttfts += [h.first_token - h.arrival for o in outputs if (h := o.handle) and h.first_token is not None]
    rates.sort()
    ttfts.sort()
    median = rates[len(rates) // 2]
    return Row(
        n, median, (rates[-1] - rates[0]) / median, ttfts[len(ttfts) // 2] * 1e3, llm.engine.stats().prefix_hits - hits
    )


def _prompts(llm: LLM, n: int, length: int, rng: random.Random) -> list[list[int]]:
    return [[rng.randrange(llm.engine.vocab_size) for _ in range(length)] for _ in range(n)]


def run(
    config: EngineConfig,
    *,
    n: list[int],
    prompt_len: int = 32,
    output_len: int = 256,
    repeat: int = 3,
    temperature: float = 0.0,
    top_p: float = 1.0,
    as_json: bool = False,
    progress=None,
) -> int:
    """Check, measure and print one row per batch size in `n`. Return the exit code: 1 when a check failed."""
    llm = LLM(**asdict(config), progress=progress, skip_tokenizer=True)
    params = SamplingParams(temperature=temperature, top_p=top_p, max_tokens=output_len, ignore_eos=True, seed=1)
    rng = random.Random(config.seed)
    limit = llm.engine.max_model_len
    try:
        if prompt_len + output_len > limit:
            raise RvllmError(
                f"--prompt-len {prompt_len} + --output-len {output_len} do not fit the context of {limit} tokens"
            )
        if not as_json:
            print(f"{'N':>5} {'tokens/s':>10} {'spread':>7} {'per seq':>9} {'TTFT ms':>9} {'hits':>5}", flush=True)
        for size in n:
            wrong = check_outputs(llm, prompt_len, min(output_len, 16), min(size, 4), rng)
            if wrong:
                print(f"N={size}: no figure, the output check failed: {wrong}", file=sys.stderr)
                return 1
            row = measure(llm, size, prompt_len, output_len, repeat, params, rng)
            if as_json:
                fields = {"name": f"decode N={size}", "unit": "tokens/s", "ours": round(row.tokens_per_s, 1)}
                print(json.dumps(fields | {"spread": round(row.spread, 3), "ttft_ms": round(row.ttft_ms, 2)}))
            else:
                print(
                    f"{row.n:>5} {row.tokens_per_s:>10.1f} {row.spread:>6.1%} {row.tokens_per_s / row.n:>9.1f} "
                    f"{row.ttft_ms:>9.1f} {row.prefix_hits:>5}",
                    flush=True,
                )
    finally:
        llm.close()
    return 0
