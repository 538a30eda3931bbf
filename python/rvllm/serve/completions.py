"""POST /v1/completions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aiohttp import web
from msgspec import UNSET

from rvllm.request import Chunk, TokenLogprob
from rvllm.serve.errors import ApiError
from rvllm.serve.generation import Choice, Generation, Job, Prompt, answer, stream
from rvllm.serve.logprobs import LogprobFormat, prompt_logprobs
from rvllm.serve.params import check_common, resolve_max_tokens, sampling_params, truncate
from rvllm.serve.responses import CompletionChoice, CompletionLogprobs
from rvllm.serve.schema import CompletionRequest, TokenId, convert
from rvllm.serve.service import SERVICE, request_id

if TYPE_CHECKING:
    from rvllm.engine import Engine, RequestHandle

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
    options = req.stream_options
    include_usage = options is not None and bool(options.include_usage)
    job = Job(
        prompts=prompts,
        params=params,
        answer_id=f"cmpl-{request_id(request, req.request_id)}",
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
    generation = Generation(service, engine, job)
    fmt = CompletionFormat(engine, req)
    return await (stream(request, generation, fmt) if req.stream else answer(generation, fmt))


async def _prompts(engine: Engine, req: CompletionRequest, asked: int | None) -> list[Prompt]:
    tokenizer = engine.tokenizer
    given = req.prompt
    if isinstance(given, str):
        given = [given]
    elif not given:
        raise ApiError(400, "prompt is empty", "prompt")
    elif isinstance(given[0], int):
        given = [given]
    out = []
    for i, item in enumerate(given):
        param = "prompt" if given[0] is item and len(given) == 1 else f"prompt[{i}]"
        if isinstance(item, str):
            if not isinstance(given[0], str):
                raise ApiError(400, "prompt must be all texts or all lists of token ids", "prompt")
            ids = await tokenizer.encode_async(item, add_special_tokens=req.add_special_tokens is not False)
        else:
            ids = convert(item, list[TokenId], param)
        kept = truncate(ids, req.truncate_prompt_tokens, asked, engine.max_model_len)
        echo = None
        if req.echo:
            echo = item if isinstance(item, str) and kept is ids else tokenizer.decode(kept, skip_special_tokens=False)
        out.append(Prompt(kept, echo))
    return out


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
        out = CompletionChoice(
            choice.index,
            (prompt.echo or "") + "".join(choice.text),
            self._render(_entries(choice, handle), _tokens(choice), 0),
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
            out.logprobs = self._render(handle.prompt_logprobs or [], prompt.ids, 0)
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

    def _render(self, entries: list[Any], tokens: list[int], offset: int) -> CompletionLogprobs | None:
        return None if self._logprobs is None else self._logprobs.completion(entries, tokens, offset)


def _entries(choice: Choice, handle: RequestHandle) -> list[TokenLogprob | None]:
    if choice.prompt.echo is None:
        return list(choice.logprobs)
    return [*(handle.prompt_logprobs or []), *choice.logprobs]


def _tokens(choice: Choice) -> list[int]:
    return choice.token_ids if choice.prompt.echo is None else choice.prompt.ids + choice.token_ids
