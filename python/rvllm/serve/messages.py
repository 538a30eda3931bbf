"""From the messages of a conversation to token ids, through the chat template."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from rvllm.errors import ModelError
from rvllm.serve.errors import ApiError
from rvllm.serve.schema import ChatRequest, TokenizeChatRequest
from rvllm.serve.service import Service

if TYPE_CHECKING:
    from rvllm.chat_template import ChatTemplate
    from rvllm.engine import Engine


async def prompt_ids(service: Service, engine: Engine, req: ChatRequest | TokenizeChatRequest) -> list[int]:
    """Render the messages through the chat template and return their tokens."""
    check_messages(req.messages)
    template = engine.chat_template if req.chat_template is None else _own_template(service, engine, req.chat_template)
    if template is None:
        raise ApiError(400, "this model has no chat template; start the server with --chat-template FILE", "messages")
    kwargs = dict(req.chat_template_kwargs or {})
    if req.reasoning_effort is not None:
        kwargs.setdefault("reasoning_effort", req.reasoning_effort)
    text = template.render(
        req.messages,
        documents=req.documents,
        add_generation_prompt=adds_generation_prompt(req),
        continue_final_message=bool(req.continue_final_message),
        chat_template_kwargs=kwargs,
    )
    return await engine.tokenizer.encode_async(text, add_special_tokens=bool(req.add_special_tokens))


def _own_template(service: Service, engine: Engine, source: str) -> ChatTemplate:
    """Compile the template that a request brings, if the server trusts its clients that far."""
    from rvllm.chat_template import ChatTemplate
    from rvllm.special_tokens import named_tokens, tokenizer_settings

    if not service.options.trust_request_chat_template:
        message = "chat_template is refused: the server was started without --trust-request-chat-template"
        raise ApiError(400, message, "chat_template")
    tokens = named_tokens(tokenizer_settings(Path(engine.config.tokenizer or engine.config.model)))
    try:
        return ChatTemplate({"default": source}, tokens, "chat_template")
    except ModelError as e:
        raise ApiError(400, str(e), "chat_template") from None


def adds_generation_prompt(req: ChatRequest | TokenizeChatRequest) -> bool:
    """Return what a request means: true unless it says otherwise or continues its last message."""
    if req.add_generation_prompt is None:
        return not req.continue_final_message
    return req.add_generation_prompt


def check_messages(messages: list[dict[str, Any]]) -> None:
    """Raise for a message that no template can take; the template checks the rest."""
    for i, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            raise ApiError(400, f"messages[{i}].role: expected str", f"messages[{i}].role")
        if not isinstance(message.get("content"), (str, list, NoneType)):
            raise ApiError(400, f"messages[{i}].content: expected str or a list of parts", f"messages[{i}].content")
