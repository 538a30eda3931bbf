"""What a caller asks of the engine, and what it gets back."""

from __future__ import annotations

import msgspec


class SamplingParams(msgspec.Struct, kw_only=True):
    """How to choose the tokens of one request. Names and defaults are those of the OpenAI API and vLLM.

    temperature 0 is greedy; top_k 0 or -1 is off; seed None draws a fresh one; logprobs and prompt_logprobs are numbers
    of alternatives (0: the token's own only, None: none). stop may also be one string; lists may be None.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int | None = 16  # None: up to the model's context
    min_tokens: int = 0
    stop: list[str] = []
    stop_token_ids: list[int] = []
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] = []
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            self.stop = [self.stop]
        for name in ("stop", "stop_token_ids", "bad_words"):
            if getattr(self, name) is None:
                setattr(self, name, [])


class TokenLogprob(msgspec.Struct):
    """Log-probability of one token, of the raw logits; `top` lists alternatives best first as (token id, logprob)."""

    token_id: int
    logprob: float
    rank: int
    top: list[tuple[int, float]]


class Chunk(msgspec.Struct):
    """What is new about one choice since the last update.

    `text` never holds half a character or part of a stop string; `token_ids` are the tokens behind it that count.
    finish_reason: None while running, else "stop", "length", "abort", "error" or "deadline"; stop_reason is the stop
    string or stop token id that ended it (None for an end-of-sequence token).
    """

    index: int
    text: str
    token_ids: list[int]
    logprobs: list[TokenLogprob] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
