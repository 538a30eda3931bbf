"""Answers that are sent at once, when all choices have finished."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from rvllm.request import Chunk
from rvllm.serve.errors import FAILED, JSON, ApiError
from rvllm.serve.generation import AnswerFormat, Choice, Generation

if TYPE_CHECKING:
    from rvllm.handle import RequestHandle


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
