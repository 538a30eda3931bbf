"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web
from msgspec import UNSET

from rvllm.errors import InvalidRequestError
from rvllm.request import Chunk
from rvllm.serve.errors import ApiError
from rvllm.serve.generation import Choice, Generation, Prompt, new_job
from rvllm.serve.logprobs import LogprobFormat, prompt_logprobs
from rvllm.serve.messages import adds_generation_prompt, prompt_ids
from rvllm.serve.params import check_common, resolve_max_tokens, sampling_params, truncate
from rvllm.serve.responses import ChatChoice, ChatChunkChoice, Delta, Message
from rvllm.serve.schema import ChatRequest
from rvllm.serve.service import SERVICE
from rvllm.serve.stream import stream
from rvllm.serve.whole import answer

if TYPE_CHECKING:
    from rvllm.engine import Engine
    from rvllm.handle import RequestHandle


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Handle POST /v1/chat/completions."""
    service = request.app[SERVICE]
    engine = service.admitting()
    req, headers = await service.read(request, ChatRequest)
    check_common(req, engine.config.scheduling_policy)
    if req.top_logprobs and not req.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs to be true", "top_logprobs")
    field = "max_tokens" if req.max_completion_tokens is None else "max_completion_tokens"
    asked = req.max_tokens if req.max_completion_tokens is None else req.max_completion_tokens
    ids = truncate(await prompt_ids(service, engine, req), req.truncate_prompt_tokens, asked, engine.max_model_len)
    default = engine.generation_defaults.get("max_tokens")
    assert default is None or isinstance(default, int)
    params = sampling_params(
        req,
        engine.generation_defaults,
        max_tokens=resolve_max_tokens(asked, field, default, len(ids), engine.max_model_len),
        logprobs=(req.top_logprobs or 0) if req.logprobs else None,
        prompt_logprobs=req.prompt_logprobs,
    )
    prompts = [Prompt(ids, _echo(req))]
    job = new_job(request, service, req, prefix="chatcmpl", prompts=prompts, params=params, headers=headers)
    generation = Generation(service, engine, job)
    fmt = ChatFormat(engine, req)
    try:
        return await (stream(request, generation, fmt) if req.stream else answer(generation, fmt))
    except InvalidRequestError as e:
        raise _in_chat_terms(e, field) from None


def _in_chat_terms(error: InvalidRequestError, max_tokens: str) -> ApiError:
    """Name the field of a chat request, where the engine names what it became."""
    param = error.param or ""
    name = {"prompt": "messages", "logprobs": "top_logprobs", "max_tokens": max_tokens}.get(param, param)
    message = str(error)
    return ApiError(400, name + message.removeprefix(param) if message.startswith(param) else message, name or None)


def _echo(req: ChatRequest) -> str | None:
    """Return the beginning of the answer that the request itself holds."""
    if not req.echo or adds_generation_prompt(req):
        return None
    content = req.messages[-1].get("content") or ""
    return content if isinstance(content, str) else "\n".join(p if isinstance(p, str) else p["text"] for p in content)


class ChatFormat:
    """Writes choices of chat completions."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, engine: Engine, req: ChatRequest):
        self._tokenizer = engine.tokenizer
        self._role = "assistant" if adds_generation_prompt(req) else str(req.messages[-1]["role"])
        self._token_ids = bool(req.return_token_ids)
        self._n_prompt_logprobs = req.prompt_logprobs
        self._logprobs: LogprobFormat | None = None
        if req.logprobs:
            as_ids = bool(req.return_tokens_as_token_ids)
            self._logprobs = LogprobFormat(engine.tokenizer, req.top_logprobs or 0, as_ids)
        self.with_logprobs = self._logprobs is not None

    def choice(self, choice: Choice, handle: RequestHandle) -> ChatChoice:
        """Return the choice of a whole answer."""
        return ChatChoice(
            choice.index,
            Message(self._role, (choice.prompt.echo or "") + "".join(choice.text)),
            None if self._logprobs is None else self._logprobs.chat(choice.logprobs),
            choice.finish_reason,
            choice.stop_reason,
            choice.token_ids if self._token_ids else UNSET,
        )

    def opening(self, choice: Choice, handle: RequestHandle) -> ChatChunkChoice:
        """Return the chunk that tells the role."""
        return ChatChunkChoice(choice.index, Delta(self._role, choice.prompt.echo or ""))

    def chunk(self, choice: Choice, chunk: Chunk) -> ChatChunkChoice:
        """Return the choice of a later chunk."""
        return ChatChunkChoice(
            choice.index,
            Delta(content=chunk.text),
            None if self._logprobs is None else self._logprobs.chat(chunk.logprobs or []),
            chunk.finish_reason,
            chunk.stop_reason,
            chunk.token_ids if self._token_ids else UNSET,
        )

    def top_level(self, handle: RequestHandle, prompt: Prompt) -> dict[str, Any]:
        """Return what chat keeps beside its choices: the prompt's tokens and log-probabilities."""
        out: dict[str, Any] = {}
        if self._token_ids:
            out["prompt_token_ids"] = prompt.ids
        if self._n_prompt_logprobs is not None:
            entries = handle.prompt_logprobs or []
            out["prompt_logprobs"] = prompt_logprobs(self._tokenizer, entries, self._n_prompt_logprobs)
        return out
