"""Chat messages to one prompt, with the template that comes with the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, InvalidRequestError, ModelError
from .special_tokens import named_tokens, read_json, tokenizer_settings

if TYPE_CHECKING:
    from .content_format import ContentFormat

_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")
_OWN_VARIABLES = ("messages", "tools", "documents", "add_generation_prompt")
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


class ChatTemplate:
    """The chat templates of a model: one, or a default and one for requests with tools."""

    def __init__(self, sources: dict[str, str], special_tokens: dict[str, str] | None = None, origin: str = "template"):
        """Compile `sources` by name ("default", "tool_use", ...); `origin` names them in errors."""
        import jinja2

        from .content_format import content_format
        from .template_sandbox import ChatEnvironment

        self.sources = sources
        self._special_tokens = special_tokens or {}
        self._environment = ChatEnvironment()
        self._templates = {}
        self._formats: dict[str, ContentFormat] = {}
        for name, source in sources.items():
            try:
                tree = self._environment.parse(source)
                self._formats[name] = content_format(tree)
                self._templates[name] = self._environment.compile_tree(tree)
            except (jinja2.TemplateError, RecursionError) as error:
                raise ModelError(f"{origin}: the chat template cannot be compiled: {error}") from None
        if not {"default", "tool_use"} & sources.keys():
            raise ModelError(f"{origin}: none of the chat templates ({', '.join(sources)}) is named default")

    @classmethod
    def from_dir(cls, path: str | Path, override: str | None = None) -> ChatTemplate | None:
        """Load the template of a model directory; None where it has none.

        override: a file, or the template itself, to use instead. Raises ModelError or ConfigError naming the file.
        """
        directory = Path(path)
        settings = tokenizer_settings(directory)
        special_tokens = named_tokens(settings)
        if override is not None:
            return cls({"default": _override_source(override)}, special_tokens, "--chat-template")
        sources, origin = _sources(directory, settings)
        return cls(sources, special_tokens, str(origin)) if sources else None

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> str:
        """Return the prompt for these messages; raises InvalidRequestError with the template's own message.

        Messages are as in the OpenAI API: content is text or a list of text parts, tool calls carry their arguments
        as JSON text (templates get the object). With continue_final_message the prompt ends inside the last message.
        """
        name = "tool_use" if tools is not None and "tool_use" in self._templates else "default"
        if name not in self._templates:
            raise InvalidRequestError("the model's chat template is only for requests with tools", "tools")
        if not messages:
            raise InvalidRequestError("messages is empty", "messages")
        if continue_final_message and add_generation_prompt:
            raise InvalidRequestError(
                "continue_final_message and add_generation_prompt exclude each other", "continue_final_message"
            )
        for key in (chat_template_kwargs or {}).keys() & _OWN_VARIABLES:
            raise InvalidRequestError(f"chat_template_kwargs may not hold {key}", "chat_template_kwargs")
        chat = [_plain(message, self._formats[name]) for message in messages]
        final_text = _tag_final(chat) if continue_final_message else ""
        variables = {
            **self._special_tokens,
            **(chat_template_kwargs or {}),
            "messages": chat,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
        }
        prompt = self._rendered(name, variables)
        return _cut_at_tag(prompt, final_text) if continue_final_message else prompt

    def _rendered(self, name: str, variables: dict[str, Any]) -> str:
        from .template_sandbox import TemplateRefusal

        try:
            return self._environment.render(self._templates[name], variables)
        except TemplateRefusal as error:
            raise InvalidRequestError(str(error), "messages") from None
        except (MemoryError, RecursionError) as error:
            raise InvalidRequestError(f"the chat template failed: {type(error).__name__}", "messages") from None
        except Exception as error:  # whatever an expression of the template can raise
            raise InvalidRequestError(f"the chat template failed: {error}", "messages") from None


def _override_source(override: str) -> str:
    try:
        if Path(override).is_file():
            return Path(override).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # also an inline template too long for a file name
        if not _looks_inline(override):
            raise ConfigError(f"--chat-template {override}: {error}") from None
    if not _looks_inline(override):
        raise ConfigError(f"--chat-template {override}: no such file, and not a template")
    return override


def _looks_inline(text: str) -> bool:
    return any(char in text for char in "{}\n")


def _sources(directory: Path, settings: dict[str, Any]) -> tuple[dict[str, str], Path]:
    """Return the templates by name and the file to blame; files of their own come before tokenizer_config.json."""
    file = directory / "chat_template.jinja"
    files = {path.stem: path for path in sorted((directory / "additional_chat_templates").glob("*.jinja"))}
    if file.is_file():
        files["default"] = file
    if files:
        try:
            return {name: path.read_text(encoding="utf-8") for name, path in files.items()}, file
        except (OSError, ValueError) as error:
            raise ModelError(f"{file}: cannot be read: {error}") from None
    origin = directory / "tokenizer_config.json"
    found = settings.get("chat_template")
    if found is None:
        origin = directory / "chat_template.json"
        found = read_json(origin).get("chat_template")
    if isinstance(found, str):
        found = [{"name": "default", "template": found}]
    try:
        sources = {entry["name"]: entry["template"] for entry in found or []}
    except (TypeError, KeyError):
        sources = {"": None}
    if not all(isinstance(text, str) for pair in sources.items() for text in pair):
        raise ModelError(f"{origin}: chat_template is neither a text nor a list of name and template")
    return sources, origin


def _plain(message: dict[str, Any], form: ContentFormat) -> dict[str, Any]:
    """Return the message as templates expect it: no absent fields, content of the right form, arguments as objects."""
    plain = {key: value for key, value in message.items() if value is not None}
    reasoning = next((plain[name] for name in _REASONING_NAMES if name in plain), None)
    if reasoning is not None:
        plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
    content = plain.get("content")
    if isinstance(content, list):
        texts = [_part_text(part) for part in content]
        plain["content"] = "\n".join(texts) if form == "text" else [{"type": "text", "text": text} for text in texts]
    elif isinstance(content, str) and form == "parts":
        plain["content"] = [{"type": "text", "text": content}]
    calls = plain.get("tool_calls")
    if isinstance(calls, list):
        plain["tool_calls"] = [_plain_call(call) for call in calls]
        if not calls:
            del plain["tool_calls"]
    return plain


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
    text = part.get(_TEXT_PARTS.get(kind, "")) if isinstance(part, dict) else None
    if kind not in _TEXT_PARTS:
        raise InvalidRequestError(f"messages: content of type {kind!r} is not supported, only text", "messages")
    if not isinstance(text, str):
        raise InvalidRequestError(f"messages: a content part of type {kind!r} has no text", "messages")
    return text


def _plain_call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            raise InvalidRequestError(
                f"messages: the arguments of the tool call {function.get('name')!r} are not JSON", "messages"
            ) from None
    return {**call, "function": {**function, "arguments": arguments}}


def _tag_final(chat: list[dict[str, Any]]) -> str:
    """Mark the end of the last message's text, to be found again in the rendered prompt; return that text."""
    final = chat[-1]
    content = final.get("content")
    if isinstance(content, list) and content:
        *rest, last = content
        final["content"] = [*rest, {**last, "text": last["text"] + _TAG}]
        return last["text"]
    if not isinstance(content, str):
        raise InvalidRequestError("continue_final_message: the last message has no content", "continue_final_message")
    final["content"] = content + _TAG
    return content


def _cut_at_tag(prompt: str, final_text: str) -> str:
    place = prompt.rfind(_TAG.strip())
    if place < 0 or final_text.strip() not in prompt:
        raise InvalidRequestError(
            "continue_final_message: the chat template changes or leaves out the last message", "continue_final_message"
        )
    # A template that trims the message took the tag's space too, and would have trimmed the text before the tag.
    return prompt[:place] if prompt.startswith(_TAG, place) else prompt[:place].rstrip()
