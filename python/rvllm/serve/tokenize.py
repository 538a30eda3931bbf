"""POST /tokenize and /detokenize."""

from __future__ import annotations

from aiohttp import web

from rvllm.serve import schema
from rvllm.serve.errors import JSON, ApiError
from rvllm.serve.messages import prompt_ids
from rvllm.serve.responses import encode
from rvllm.serve.schema import DetokenizeRequest, TokenizeChatRequest, TokenizeTextRequest
from rvllm.serve.service import SERVICE


async def tokenize(request: web.Request) -> web.Response:
    """Handle POST /tokenize: a prompt, or messages through the chat template."""
    service = request.app[SERVICE]
    engine = service.loaded()
    tokenizer = engine.tokenizer
    if schema.has_field(await service.read_body(request), "messages"):
        chat, headers = await service.read(request, TokenizeChatRequest)
        ids = await prompt_ids(service, engine, chat)
        with_strs = chat.return_token_strs
    else:
        text, headers = await service.read(request, TokenizeTextRequest)
        ids = await tokenizer.encode_async(text.prompt, add_special_tokens=text.add_special_tokens is not False)
        with_strs = text.return_token_strs
    body = {
        "count": len(ids),
        "max_model_len": engine.max_model_len,
        "tokens": ids,
        "token_strs": [tokenizer.token_str(t) for t in ids] if with_strs else None,
    }
    return web.Response(body=encode(body), content_type=JSON, headers=headers)


async def detokenize(request: web.Request) -> web.Response:
    """Handle POST /detokenize."""
    service = request.app[SERVICE]
    engine = service.loaded()
    req, headers = await service.read(request, DetokenizeRequest)
    if req.tokens and max(req.tokens) >= engine.vocab_size:
        message = f"token id {max(req.tokens)} is not in the vocabulary of {engine.vocab_size} tokens"
        raise ApiError(400, message, "tokens")
    text = engine.tokenizer.decode(req.tokens, skip_special_tokens=bool(req.skip_special_tokens))
    return web.Response(body=encode({"prompt": text}), content_type=JSON, headers=headers)
