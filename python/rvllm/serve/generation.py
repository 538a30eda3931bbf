"""One API request while it runs: its prompts in the engine, its choices, and its answer, whole or streamed.

What differs between completions and chat is behind AnswerFormat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from msgspec import UNSET

from rvllm.request import Chunk, SamplingParams, TokenLogprob
from rvllm.serve.errors import FAILED, JSON, ApiError, as_api_error
from rvllm.serve.responses import PromptTokensDetails, Response, Usage, encode
from rvllm.serve.service import Service
from rvllm.serve.sse import DONE, SseStream, frame

if TYPE_CHECKING:
    from rvllm.engine import Engine, RequestHandle


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
    priority: int = 0
    cache_salt: str | None = None
    no_output: bool = False  # echo with max_tokens 0: the prompt is the answer
    token_ids: bool = False  # return_token_ids
    include_usage: bool = False
    continuous_usage: bool = False


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


# ---- whole answers -------------------------------------------------------------------------------------


async def answer(generation: Generation, fmt: AnswerFormat) -> web.Response:
    """Run a generation and return its whole answer. Cancels it when the client goes away."""
    job = generation.job
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    metrics = generation.service.metrics
    last: dict[int, float | None] = {}

    def on_update(first: int, handle: RequestHandle, chunks: list[Chunk]) -> None:
        if metrics is not None:
            last[first] = metrics.update(handle, chunks, last.get(first))
        for chunk in chunks:
            choice = generation.choices[first + chunk.index]
            choice.count(chunk)
            choice.text.append(chunk.text)
            choice.token_ids += chunk.token_ids
            if chunk.logprobs:
                choice.logprobs += chunk.logprobs
        if handle.finished:
            generation.n_left -= 1
            generation.ended(first, handle)
            if not generation.n_left and not done.done():
                done.set_result(None)

    try:
        generation.submit(on_update)
        await done
    finally:
        generation.cancel()
    for choice in generation.choices:
        if choice.finish_reason in FAILED:
            raise ApiError(*FAILED[choice.finish_reason])
    if job.no_output:
        _drop_output(generation.choices)
    n = job.params.n
    body = generation.response(
        fmt.object,
        [fmt.choice(c, generation.handles[c.index // n]) for c in generation.choices],
        usage=generation.usage(),
        metrics=generation.request_metrics(),
        **fmt.top_level(generation.handles[0], job.prompts[0]),
    )
    return web.Response(body=body, content_type=JSON, headers=job.headers)


def _drop_output(choices: list[Choice]) -> None:
    for choice in choices:
        choice.text, choice.token_ids, choice.logprobs = [], [], []
        choice.finish_reason, choice.stop_reason = "length", None


# ---- streams -------------------------------------------------------------------------------------------


class Stream:
    """Turns updates into events. A plain piece of text is two byte strings around its JSON, made once per choice."""

    def __init__(self, generation: Generation, fmt: AnswerFormat, out: SseStream):
        self.generation = generation
        self.fmt = fmt
        self.out = out
        job = generation.job
        self._metrics = generation.service.metrics
        self._last: list[float | None] = [None] * len(job.prompts)
        self._n = job.params.n
        self._detailed = job.token_ids or job.continuous_usage or job.no_output or fmt.with_logprobs
        self._ended = False
        self._halves: dict[int, tuple[bytes, bytes]] = {}

    def _split(self, choice: Choice) -> tuple[bytes, bytes]:
        """Return what stands before and behind the JSON string of a text in a plain event."""
        mark = "\x00text\x00"
        whole = frame(self._chunk_json(self.fmt.chunk(choice, Chunk(choice.index, mark, []))))
        head, _, tail = whole.rpartition(encode(mark))
        return head, tail

    def _chunk_json(self, rendered: Any, last: bool = False, **fields: Any) -> bytes:
        job = self.generation.job
        if job.continuous_usage:
            fields["usage"] = self.generation.usage()
        elif job.include_usage:
            fields["usage"] = None
        elif last:
            fields["metrics"] = self.generation.request_metrics()
        return self.generation.response(self.fmt.chunk_object, [rendered], **fields)

    def on_update(self, first: int, handle: RequestHandle, chunks: list[Chunk]) -> None:
        """Write everything new about one prompt at once."""
        if self._ended or self.out.closed:
            return
        events: list[bytes] = []
        try:
            self._render(first, handle, chunks, events)
        except Exception as e:
            events += (frame(as_api_error(e).body()), DONE)
            self._ended = True
        if events:
            self.out.send(b"".join(events))
        if self._ended:
            self.out.finish()

    def _render(self, first: int, handle: RequestHandle, chunks: list[Chunk], events: list[bytes]) -> None:
        generation = self.generation
        if self._metrics is not None:
            number = first // self._n
            self._last[number] = self._metrics.update(handle, chunks, self._last[number])
        if handle.finished:
            generation.n_left -= 1
        for chunk in chunks:
            choice = generation.choices[first + chunk.index]
            if not choice.opened:
                self._open(choice, handle, events)
            choice.count(chunk)
            if chunk.finish_reason is not None or self._detailed:
                if chunk.finish_reason in FAILED:
                    raise ApiError(*FAILED[chunk.finish_reason])
                self._detail(choice, chunk, events)
            elif chunk.text:
                head, tail = self._halves[choice.index]
                events.append(head + encode(chunk.text) + tail)
        if handle.finished:
            generation.ended(first, handle)
            if not generation.n_left:
                self._close(events)

    def _open(self, choice: Choice, handle: RequestHandle, events: list[bytes]) -> None:
        choice.opened = True
        if not self._detailed:
            self._halves[choice.index] = self._split(choice)
        rendered = self.fmt.opening(choice, handle)
        if rendered is not None:
            fields = self.fmt.top_level(handle, choice.prompt) if choice.index == 0 else {}
            events.append(frame(self._chunk_json(rendered, **fields)))

    def _detail(self, choice: Choice, chunk: Chunk, events: list[bytes]) -> None:
        job = self.generation.job
        if job.no_output:
            if chunk.finish_reason is None:
                return
            chunk = Chunk(chunk.index, "", [], None, "length")
        last = chunk.finish_reason is not None and not self.generation.n_left
        events.append(frame(self._chunk_json(self.fmt.chunk(choice, chunk), last=last)))
        choice.n_chars += len(chunk.text)

    def _close(self, events: list[bytes]) -> None:
        generation = self.generation
        if generation.job.include_usage:
            body = generation.response(
                self.fmt.chunk_object, [], usage=generation.usage(), metrics=generation.request_metrics()
            )
            events.append(frame(body))
        events.append(DONE)
        self._ended = True


async def stream(request: web.Request, generation: Generation, fmt: AnswerFormat) -> web.StreamResponse:
    """Run a generation and stream it. Cancels it when the client goes away or reads too slowly."""
    out = SseStream(request, generation.job.headers, generation.service.options.max_unsent_bytes)
    writer = Stream(generation, fmt, out)
    try:
        generation.submit(writer.on_update)
        await out.start()
        await out.wait()
    finally:
        generation.cancel()
    return out.response
