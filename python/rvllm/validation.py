"""Checks of a request against the model it goes to. Ranges and sentences follow vLLM's."""

from __future__ import annotations

import math

from rvllm.errors import InvalidRequestError
from rvllm.request import SamplingParams

# What is compiled per request, on the event loop: together some 30 ms and 6 MB.
MAX_STOP_CHARS = 1 << 14
MAX_BAD_WORDS = 1 << 10
MAX_BAD_WORD_CHARS = 1 << 14


def check_prompt(prompt: list[int], vocab_size: int, max_model_len: int) -> None:
    """Raise InvalidRequestError unless `prompt` is 1..max_model_len - 1 token ids of the vocabulary."""
    if not prompt:
        raise InvalidRequestError("the prompt is empty: it needs at least one token", "prompt")
    if len(prompt) >= max_model_len:
        raise InvalidRequestError(
            f"This model's maximum context length is {max_model_len} tokens, but the prompt has {len(prompt)} tokens "
            "and at least one more is needed for the answer. Shorten the prompt.",
            "prompt",
        )
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        bad = next(t for t in prompt if not 0 <= t < vocab_size)
        raise InvalidRequestError(f"token id {bad} is not in the vocabulary of {vocab_size} tokens", "prompt")


def check_sampling_params(p: SamplingParams, vocab_size: int, max_logprobs: int, max_num_seqs: int) -> None:
    """Raise InvalidRequestError naming the first field of `p` that is out of range."""
    _range("n", p.n, 1, max_num_seqs, "--max-num-seqs")
    _finite("temperature", p.temperature, 0.0, math.inf)
    _finite("top_p", p.top_p, 0.0, 1.0, open_low=True)
    _finite("min_p", p.min_p, 0.0, 1.0)
    _finite("repetition_penalty", p.repetition_penalty, 0.0, math.inf, open_low=True)
    _finite("frequency_penalty", p.frequency_penalty, -2.0, 2.0)
    _finite("presence_penalty", p.presence_penalty, -2.0, 2.0)
    if p.top_k < -1:
        raise InvalidRequestError(f"top_k must be -1 or 0 (off) or at least 1, got {p.top_k}", "top_k")
    if p.max_tokens is not None and p.max_tokens < 1:
        raise InvalidRequestError(f"max_tokens must be at least 1, got {p.max_tokens}", "max_tokens")
    if p.min_tokens < 0:
        raise InvalidRequestError(f"min_tokens must be at least 0, got {p.min_tokens}", "min_tokens")
    if p.max_tokens is not None and p.min_tokens > p.max_tokens:
        raise InvalidRequestError(
            f"min_tokens must not be above max_tokens ({p.max_tokens}), got {p.min_tokens}", "min_tokens"
        )
    for name, n in (("logprobs", p.logprobs), ("prompt_logprobs", p.prompt_logprobs)):
        if n is not None:
            _range(name, n, 0, max_logprobs, "--max-logprobs")
    if p.seed is not None and not -(2**63) <= p.seed < 2**64:
        raise InvalidRequestError(f"seed must fit 64 bits, got {p.seed}", "seed")
    if any(not s for s in p.stop):
        raise InvalidRequestError("stop must not hold an empty string", "stop")
    _at_most("stop", sum(map(len, p.stop)), MAX_STOP_CHARS, "characters in all")
    _ids("stop_token_ids", p.stop_token_ids, vocab_size)
    if p.allowed_token_ids is not None:
        if not p.allowed_token_ids:
            raise InvalidRequestError("allowed_token_ids must not be empty", "allowed_token_ids")
        _ids("allowed_token_ids", p.allowed_token_ids, vocab_size)
    if p.logit_bias:
        _ids("logit_bias", p.logit_bias, vocab_size)
        for token, bias in p.logit_bias.items():
            if not math.isfinite(bias):
                raise InvalidRequestError(f"logit_bias of token {token} is not a finite number", "logit_bias")
    if any(not w for w in p.bad_words):
        raise InvalidRequestError("bad_words must not hold an empty string", "bad_words")
    _at_most("bad_words", len(p.bad_words), MAX_BAD_WORDS, "words")
    _at_most("bad_words", sum(map(len, p.bad_words)), MAX_BAD_WORD_CHARS, "characters in all")


def check_capacity(p: SamplingParams, bad_words: list[list[int]], n_eos: int, capacity: dict[str, int]) -> None:
    """Raise InvalidRequestError naming the field that brings more than a device's sampler has room for.

    `bad_words` are token ids, `n_eos` the model's own end tokens, `capacity` entries or tokens by field.
    """
    sizes = {
        "logit_bias": len(p.logit_bias or ()),
        "bad_words": sum(map(len, bad_words)),
        "stop_token_ids": len(p.stop_token_ids) + n_eos,
    }
    for name, size in sizes.items():
        if size > capacity[name]:
            unit = "tokens in all" if name == "bad_words" else "entries"
            raise InvalidRequestError(f"{name} has {size} {unit}; on a GPU at most {capacity[name]} fit", name)


def _range(name: str, value: int, low: int, high: int, flag: str) -> None:
    if not low <= value <= high:
        raise InvalidRequestError(f"{name} must be {low} to {high} ({flag}), got {value}", name)


def _at_most(name: str, size: int, most: int, unit: str) -> None:
    if size > most:
        raise InvalidRequestError(f"{name} has {size} {unit}; a request may bring {most}", name)


def _finite(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if not math.isfinite(value) or not (low < value if open_low else low <= value) or value > high:
        above = "above" if open_low else "at least"
        upto = "" if high == math.inf else f" and at most {high:g}"
        raise InvalidRequestError(f"{name} must be {above} {low:g}{upto}, got {value}", name)


def _ids(name: str, ids, vocab_size: int) -> None:
    for token in ids:
        if not 0 <= token < vocab_size:
            raise InvalidRequestError(
                f"{name} holds token id {token}, which is not in the vocabulary of {vocab_size} tokens", name
            )
