"""A submitted request as Python keeps it: its times, its counts, and what is new about each of its choices."""

from __future__ import annotations

import time
from collections.abc import Callable

from rvllm.request import Chunk, SamplingParams, TokenLogprob

OnUpdate = Callable[["RequestHandle", list[Chunk]], None]


class RequestHandle:
    """One submitted request: what is known about it so far.

    Times are time.monotonic() seconds, or None while they have not come. `n_generated` counts the tokens of all choices
    that are part of the answer; tokens behind a stop string are not.
    """

    __slots__ = (
        "arrival",
        "choices",
        "finished",
        "first_token",
        "id",
        "last_token",
        "n_cached",
        "n_choices_left",
        "n_generated",
        "n_prompt",
        "on_update",
        "params",
        "prompt_logprobs",
        "scheduled",
    )

    def __init__(self, request_id: int, n_prompt: int, params: SamplingParams, on_update: OnUpdate):
        self.id = request_id
        self.n_prompt = n_prompt
        self.params = params
        self.on_update = on_update
        self.choices: list[RunningChoice] = []
        self.n_choices_left = params.n
        self.n_cached = 0
        self.n_generated = 0
        self.prompt_logprobs: list[TokenLogprob | None] | None = None if params.prompt_logprobs is None else [None]
        self.arrival = time.monotonic()
        self.scheduled: float | None = None
        self.first_token: float | None = None
        self.last_token: float | None = None
        self.finished = False


class RunningChoice:
    """Events of one choice, gathered between two updates."""

    __slots__ = (
        "detokenizer",
        "done",
        "finish_reason",
        "include_stop",
        "index",
        "logprobs",
        "n_counted",
        "stop_reason",
        "tokens",
        "touched",
    )

    def __init__(self, index: int, detokenizer, with_logprobs: bool, include_stop: bool):
        self.index = index
        self.detokenizer = detokenizer  # None: tokens only
        self.include_stop = include_stop
        self.tokens: list[int] = []
        self.n_counted = 0
        self.logprobs: list[TokenLogprob] | None = [] if with_logprobs else None
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.done = False
        self.touched = False

    def take(self) -> Chunk:
        """Return what is new, and forget it."""
        tokens, logprobs = self.tokens, self.logprobs
        text = ""
        if self.detokenizer is not None:
            text = self._detokenize()
            tokens = self.tokens
            if logprobs is not None:
                logprobs = logprobs[: len(tokens)]
        chunk = Chunk(self.index, text, tokens, logprobs, self.finish_reason, self.stop_reason)
        self.tokens = []
        if self.logprobs is not None:
            self.logprobs = []
        self.touched = False
        self.done = self.finish_reason is not None
        return chunk

    def count(self, n_tokens: int) -> int:
        """Return by how many tokens the answer has grown; negative when a stop string was found behind its end."""
        before = self.n_counted
        self.n_counted += n_tokens
        if self.detokenizer is not None and self.detokenizer.stopped is not None:
            self.n_counted = self.detokenizer.n_tokens
        return self.n_counted - before

    def _detokenize(self) -> str:
        detokenizer = self.detokenizer
        before = detokenizer.n_tokens
        # A token that stopped the choice is part of the answer, but of its text only when asked for.
        hidden = self.finish_reason == "stop" and not self.include_stop
        text = detokenizer.push(self.tokens[:-1] if hidden else self.tokens)
        if detokenizer.stopped is None and self.finish_reason is not None:
            text += detokenizer.finish()  # what was held back may still complete a stop string
        if detokenizer.stopped is not None:
            self.finish_reason = "stop"
            self.stop_reason = detokenizer.stopped
            self.tokens = self.tokens[: max(0, detokenizer.n_tokens - before)]
        return text
