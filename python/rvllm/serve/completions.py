"""POST /v1/completions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web
from msgspec import UNSET

from rvllm.request import Chunk, TokenLogprob
from rvllm.serve.errors import ApiError
from rvllm.serve.generation import Choice, Generation, Prompt, new_job
from rvllm.serve.logprobs import LogprobFormat, prompt_logprobs
from rvllm.serve.params import check_common, resolve_max_tokens, sampling_params, truncate
from rvllm.serve.responses import CompletionChoice, CompletionLogprobs
from rvllm.serve.schema import CompletionRequest, TokenId, convert
from rvllm.serve.service import SERVICE
from rvllm.serve.stream import stream
from rvllm.serve.whole import answer

if TYPE_CHECKING:
    from rvllm.engine import Engine
    from rvllm.handle import RequestHandle

# What the API's documentation gives for a request that does not say.
DEFAULT_MAX_TOKENS = 16


async def completions(request: web.Request) -> web.StreamResponse:
    """Handle POST /v1/completions."""
    service = request.app[SERVICE]
    engine = service.admitting()
    req, headers = await service.read(request, CompletionRequest)
    check_common(req, engine.config.scheduling_policy)
    no_output = bool(req.echo) and req.max_tokens == 0
    asked = 1 if no_output else req.max_tokens
    prompts = await _prompts(engine, req, asked)
    limit = engine.max_model_len
    default = engine.generation_defaults.get("max_tokens", DEFAULT_MAX_TOKENS)
    assert isinstance(default, int)
    max_tokens = resolve_max_tokens(asked, "max_tokens", default, max(len(p.ids) for p in prompts), limit)
    n_prompt_logprobs = req.prompt_logprobs
    if req.echo and req.logprobs is not None:
        n_prompt_logprobs = max(req.logprobs, n_prompt_logprobs or 0)
    params = sampling_params(
        req,
        engine.generation_defaults,
        max_tokens=max_tokens,
        logprobs=req.logprobs,
        prompt_logprobs=n_prompt_logprobs,
    )
    job = new_job(
        request, service, req, prefix="cmpl", prompts=prompts, params=params, headers=headers, no_output=no_output
    )
    generation = Generation(service, engine, job)
    fmt = CompletionFormat(engine, req)
    return await (stream(request, generation, fmt) if req.stream else answer(generation, fmt))


async def _prompts(engine: Engine, req: CompletionRequest, asked: int | None) -> list[Prompt]:
    tokenizer = engine.tokenizer
    out = []
    prompts = _prompt_list(req.prompt)
    limit = engine.loaded.sizes.max_num_seqs + engine.config.max_num_queued_reqs
    if len(prompts) > limit:
        raise ApiError(400, f"prompt holds {len(prompts)} prompts, but this server takes {limit} at once", "prompt")
    for given in prompts:
        text = given if isinstance(given, str) else None
        if isinstance(given, str):
            ids = await tokenizer.encode_async(given, add_special_tokens=req.add_special_tokens is not False)
            await asyncio.sleep(0)  # many short prompts must not keep the event loop either
        else:
            ids = given
        kept = truncate(ids, req.truncate_prompt_tokens, asked, engine.max_model_len)
        if req.echo and (text is None or kept is not ids):
            text = tokenizer.decode(kept, skip_special_tokens=False)
        out.append(Prompt(kept, text if req.echo else None))
    return out


def _prompt_list(prompt: str | list[Any]) -> list[str] | list[list[int]]:
    """Return the prompts of a request, which may be a text, texts, token ids, or lists of token ids."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise ApiError(400, "prompt is empty", "prompt")
    if isinstance(prompt[0], str):
        return convert(prompt, list[str], "prompt")
    if isinstance(prompt[0], int):
        return [convert(prompt, list[TokenId], "prompt")]
    return convert(prompt, list[list[TokenId]], "prompt")


class CompletionFormat:
    """Writes choices of text completions."""

    object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, engine: Engine, req: CompletionRequest):
        self._tokenizer = engine.tokenizer
        self._token_ids = bool(req.return_token_ids)
        self._n_prompt_logprobs = req.prompt_logprobs
        self._logprobs: LogprobFormat | None = None
        if req.logprobs is not None:
            self._logprobs = LogprobFormat(engine.tokenizer, req.logprobs, bool(req.return_tokens_as_token_ids))
        self.with_logprobs = self._logprobs is not None

    def choice(self, choice: Choice, handle: RequestHandle) -> CompletionChoice:
        """Return the choice of a whole answer."""
        prompt = choice.prompt
        echo = prompt.echo or ""
        logprobs = self._render(choice.logprobs, choice.token_ids, len(echo))
        if prompt.echo is not None:
            logprobs = _joined(self._prompt_logprobs(prompt, handle), logprobs)
        out = CompletionChoice(
            choice.index,
            echo + "".join(choice.text),
            logprobs,
            choice.finish_reason,
            choice.stop_reason,
        )
        if self._token_ids:
            out.token_ids = choice.token_ids
            out.prompt_token_ids = prompt.ids
        if self._n_prompt_logprobs is not None:
            out.prompt_logprobs = prompt_logprobs(
                self._tokenizer, handle.prompt_logprobs or [], self._n_prompt_logprobs
            )
        return out

    def opening(self, choice: Choice, handle: RequestHandle) -> CompletionChoice | None:
        """Return the echoed prompt, if it is asked for."""
        prompt = choice.prompt
        if prompt.echo is None and not self._token_ids:
            return None
        echo = prompt.echo or ""
        out = CompletionChoice(choice.index, echo)
        if prompt.echo is not None:
            out.logprobs = self._prompt_logprobs(prompt, handle)
            choice.n_chars = len(echo)
        if self._token_ids:
            out.token_ids = []
            out.prompt_token_ids = prompt.ids
        return out

    def chunk(self, choice: Choice, chunk: Chunk) -> CompletionChoice:
        """Return the choice of a later chunk."""
        logprobs = None
        if self._logprobs is not None:
            logprobs = self._render(chunk.logprobs or [], chunk.token_ids, choice.n_chars)
        return CompletionChoice(
            choice.index,
            chunk.text,
            logprobs,
            chunk.finish_reason,
            chunk.stop_reason,
            chunk.token_ids if self._token_ids else UNSET,
        )

    def top_level(self, handle: RequestHandle, prompt: Prompt) -> dict[str, Any]:
        """Completions keep everything in their choices."""
        return {}

    def _prompt_logprobs(self, prompt: Prompt, handle: RequestHandle) -> CompletionLogprobs | None:
        return self._render(handle.prompt_logprobs or [], prompt.ids, 0)

    def _render(
        self, entries: Sequence[TokenLogprob | None], tokens: list[int], offset: int
    ) -> CompletionLogprobs | None:
        return None if self._logprobs is None else self._logprobs.completion(entries, tokens, offset)


def _joined(first: CompletionLogprobs | None, second: CompletionLogprobs | None) -> CompletionLogprobs | None:
    if first is None or second is None:
        return None
    return CompletionLogprobs(
        first.text_offset + second.text_offset,
        first.token_logprobs + second.token_logprobs,
        first.tokens + second.tokens,
        first.top_logprobs + second.top_logprobs,
    )
