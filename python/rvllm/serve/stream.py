"""Answers that are streamed: every update of the engine becomes one write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from rvllm.request import Chunk
from rvllm.serve.errors import FAILED, ApiError, as_api_error
from rvllm.serve.generation import AnswerFormat, Choice, Generation
from rvllm.serve.responses import encode
from rvllm.serve.sse import DONE, SseStream, frame

if TYPE_CHECKING:
    from rvllm.handle import RequestHandle


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
