"""One API request while it runs: its prompts in the engine and its choices.

What differs between completions and chat is behind AnswerFormat; whole.py and stream.py send the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from msgspec import UNSET

from rvllm.request import Chunk, SamplingParams, TokenLogprob
from rvllm.serve.responses import PromptTokensDetails, Response, Usage, encode
from rvllm.serve.schema import GenerationRequest
from rvllm.serve.service import Service, request_id

if TYPE_CHECKING:
    from rvllm.engine import Engine
    from rvllm.handle import RequestHandle


@dataclass(slots=True)
class Prompt:
    """One prompt; `echo` is its text when the answer repeats it."""

    ids: list[int]
    echo: str | None = None


@dataclass(slots=True)
class Choice:
    """One choice of the answer. Number prompt * n + choice of that prompt."""

    index: int
    prompt: Prompt
    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    n_tokens: int = 0
    n_chars: int = 0  # sent so far, for text_offset
    opened: bool = False  # its first chunk has been sent

    def count(self, chunk: Chunk) -> None:
        """Keep the books of one chunk."""
        self.n_tokens += len(chunk.token_ids)
        if chunk.finish_reason is not None:
            self.finish_reason = chunk.finish_reason
            self.stop_reason = chunk.stop_reason


@dataclass(slots=True, kw_only=True)
class Job:
    """What to run and what the answer must hold."""

    prompts: list[Prompt]
    params: SamplingParams
    answer_id: str
    created: int
    model: str
    headers: dict[str, str]
    priority: int
    cache_salt: str | None
    no_output: bool  # echo with max_tokens 0: the prompt is the answer
    token_ids: bool  # return_token_ids
    include_usage: bool
    continuous_usage: bool


def new_job(
    request: web.Request,
    service: Service,
    req: GenerationRequest,
    *,
    prefix: str,
    prompts: list[Prompt],
    params: SamplingParams,
    headers: dict[str, str],
    no_output: bool = False,
) -> Job:
    """Return the job of a decoded request; `prefix` begins the id of its answer."""
    options = req.stream_options
    include_usage = options is not None and bool(options.include_usage)
    return Job(
        prompts=prompts,
        params=params,
        answer_id=f"{prefix}-{request_id(request, req.request_id)}",
        created=int(time.time()),
        model=req.model or service.model_names[0],
        headers=headers,
        priority=req.priority or 0,
        cache_salt=req.cache_salt,
        no_output=no_output,
        token_ids=bool(req.return_token_ids),
        include_usage=include_usage,
        continuous_usage=include_usage and options is not None and bool(options.continuous_usage_stats),
    )


class AnswerFormat(Protocol):
    """How an API writes choices. Handles tell prompt log-probabilities."""

    object: str
    chunk_object: str
    with_logprobs: bool

    def choice(self, choice: Choice, handle: RequestHandle) -> Any:
        """Return the choice of a whole answer."""
        ...

    def opening(self, choice: Choice, handle: RequestHandle) -> Any:
        """Return the choice of the first chunk, or None when there is nothing to say before the text."""
        ...

    def chunk(self, choice: Choice, chunk: Chunk) -> Any:
        """Return the choice of a later chunk."""
        ...

    def top_level(self, handle: RequestHandle, prompt: Prompt) -> dict[str, Any]:
        """Return fields of a whole answer, or of the first chunk, that stand beside `choices`."""
        ...


class Generation:
    """The running prompts of a job. Updates go to `on_update(first choice number, handle, chunks)`."""

    def __init__(self, service: Service, engine: Engine, job: Job):
        self.service = service
        self.engine = engine
        self.job = job
        self.choices: list[Choice] = []  # filled by submit(), once the engine has accepted n
        self.handles: list[RequestHandle] = []
        self.n_left = len(job.prompts)
        self._counted = [False] * len(job.prompts)

    def submit(self, on_update: Callable[[int, RequestHandle, list[Chunk]], None]) -> None:
        """Hand all prompts to the engine, or none."""
        job, n = self.job, self.job.params.n
        try:
            with self.engine.together():
                for i, prompt in enumerate(job.prompts):
                    self.handles.append(
                        self.engine.submit(
                            prompt.ids,
                            job.params,
                            on_update=partial(on_update, i * n),
                            priority=job.priority,
                            cache_salt=job.cache_salt,
                        )
                    )
                    self.choices += [Choice(i * n + k, prompt) for k in range(n)]
        except BaseException:
            for handle in self.handles:
                self.engine.cancel(handle)
            raise

    def cancel(self) -> None:
        """End what still runs; safe to call at any time."""
        for i, handle in enumerate(self.handles):
            if not handle.finished:
                self.engine.cancel(handle)
            self.ended(i * self.job.params.n, handle)

    def ended(self, first: int, handle: RequestHandle) -> None:
        """Report one prompt to the metrics, once."""
        n = self.job.params.n
        if self.service.metrics is None or self._counted[first // n]:
            return
        self._counted[first // n] = True
        mine = self.choices[first : first + n]
        max_tokens = self.job.params.max_tokens or self.engine.max_model_len - handle.n_prompt
        self.service.metrics.finished(handle, max_tokens, [c.n_tokens for c in mine], [c.finish_reason for c in mine])

    def usage(self) -> Usage:
        """Return the tokens so far."""
        prompt = sum(h.n_prompt for h in self.handles)
        output = 0 if self.job.no_output else sum(h.n_generated for h in self.handles)
        cached = sum(h.n_cached for h in self.handles)
        return Usage(prompt, output, prompt + output, PromptTokensDetails(cached))

    def request_metrics(self) -> Any:
        """Return the times of this request, if the server was asked for them."""
        if not self.service.options.enable_per_request_metrics:
            return UNSET
        started = min(h.arrival for h in self.handles)
        first = min((h.first_token for h in self.handles if h.first_token is not None), default=None)
        last = max((h.last_token for h in self.handles if h.last_token is not None), default=None)
        scheduled = min((h.scheduled for h in self.handles if h.scheduled is not None), default=None)
        if first is None or last is None or scheduled is None:
            return UNSET
        longest = max(c.n_tokens for c in self.choices)
        n_tokens = sum(c.n_tokens for c in self.choices)
        return {
            "time_to_first_token_ms": (first - started) * 1e3,
            "generation_time_ms": (last - first) * 1e3,
            "queue_time_ms": (scheduled - started) * 1e3,
            "mean_itl_ms": (last - first) * 1e3 / (longest - 1) if longest > 1 else None,
            "tokens_per_second": n_tokens / (last - scheduled) if last > scheduled else None,
        }

    def response(self, kind: str, choices: list[Any], **fields: Any) -> bytes:
        """Encode an answer or a chunk."""
        job = self.job
        return encode(
            Response(
                id=job.answer_id,
                object=kind,
                created=job.created,
                model=job.model,
                choices=choices,
                system_fingerprint=self.service.fingerprint,
                **fields,
            )
        )
