"""What requests may hold: one msgspec Struct per endpoint, and the table of fields that are known but not served.

None always means "not given". Ranges that depend on the model are checked by rvllm.validation.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from rvllm.serve.errors import ApiError

Int32 = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
Count = Annotated[int, Meta(ge=0, lt=2**31)]
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]


class StreamOptions(Struct, kw_only=True):
    """What a stream says besides its text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationRequest(Struct, kw_only=True):
    """Fields that completions and chat share."""

    model: str | None = None
    user: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Int32 | None = None
    max_tokens: Count | None = None
    min_tokens: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int32 | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[TokenId, Bias] | None = None
    allowed_token_ids: list[TokenId] | None = None
    bad_words: list[str] | None = None
    prompt_logprobs: Int32 | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, lt=2**31)] | None = None
    add_special_tokens: bool | None = None
    echo: bool | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    priority: Int32 | None = None
    cache_salt: Name | None = None
    request_id: Name | None = None


class CompletionRequest(GenerationRequest, kw_only=True):
    """POST /v1/completions."""

    prompt: str | list[Any]
    logprobs: Count | None = None


Messages = Annotated[list[dict[str, Any]], Meta(min_length=1)]


class ChatRequest(GenerationRequest, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Messages
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: Count | None = None
    max_completion_tokens: Count | None = None


class TokenizeTextRequest(Struct, kw_only=True):
    """POST /tokenize with a text."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class TokenizeChatRequest(Struct, kw_only=True):
    """POST /tokenize with messages: their fields are those of ChatRequest."""

    messages: Messages
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None
    reasoning_effort: str | None = None
    model: str | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(Struct, kw_only=True):
    """POST /detokenize."""

    tokens: list[TokenId]
    model: str | None = None
    skip_special_tokens: bool | None = None


# ---- fields that are known but not served --------------------------------------------------------------


class Refusal(Struct):
    """Why a field is refused, and the values that ask for nothing and so pass."""

    harmless: tuple[Any, ...] = ()
    advice: str = "is not supported yet"


_GONE = Refusal(advice="was removed from the API in favour of structured_outputs, which is not supported yet")
_UNSUPPORTED: dict[str, Refusal] = {
    "best_of": Refusal((1,), "was removed from the API; use n"),
    "use_beam_search": Refusal((False,)),
    "length_penalty": Refusal((1, 1.0)),
    "early_stopping": Refusal((False,)),
    "logits_processors": Refusal(([],), "is not supported: no Python runs per token here; use logit_bias"),
    "logprob_token_ids": Refusal(([],)),
    "response_format": Refusal(({"type": "text"},), "other than {'type': 'text'} is not supported yet"),
    "structured_outputs": Refusal(),
    "guided_json": _GONE,
    "guided_regex": _GONE,
    "guided_choice": _GONE,
    "guided_grammar": _GONE,
    "prompt_embeds": Refusal(),
    "kv_transfer_params": Refusal(),
    "vllm_xargs": Refusal(({},)),
    "thinking_token_budget": Refusal(),
}
_CHAT_UNSUPPORTED: dict[str, Refusal] = {
    "tools": Refusal(([],)),
    "tool_choice": Refusal(("none", "auto")),
    "parallel_tool_calls": Refusal((True, False)),
    "functions": Refusal(([],), "was replaced by tools, which is not supported yet"),
    "function_call": Refusal(("none", "auto"), "was replaced by tool_choice, which is not supported yet"),
    "modalities": Refusal((["text"],), "other than ['text'] is not supported"),
    "audio": Refusal(),
    "prediction": Refusal(),
    "web_search_options": Refusal(),
    "include_reasoning": Refusal((True, False)),
    "mm_processor_kwargs": Refusal(({},)),
    "media_io_kwargs": Refusal(({},)),
}
UNSUPPORTED: dict[type, dict[str, Refusal]] = {
    CompletionRequest: _UNSUPPORTED | {"suffix": Refusal(("",))},
    ChatRequest: _UNSUPPORTED | _CHAT_UNSUPPORTED,
    TokenizeChatRequest: {name: _CHAT_UNSUPPORTED[name] for name in ("tools", "mm_processor_kwargs")},
}


# ---- decoding ------------------------------------------------------------------------------------------

T = TypeVar("T", bound=Struct)
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode(body: bytes, kind: type[T]) -> tuple[T, list[str]]:
    """Decode a body and return (request, names of fields that were ignored).

    Raises ApiError 400 naming the field that has a wrong type, is out of range, is missing or is not supported.
    """
    try:
        ignored = _check_names(_fields_of(body), kind)
        return _decoder(kind).decode(body), ignored
    except msgspec.ValidationError as e:
        raise invalid(e) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ApiError(400, f"the body is not valid JSON: {e}") from None


def _fields_of(body: bytes) -> dict[str, msgspec.Raw]:
    if not body:
        raise ApiError(400, "the body is empty: it must be a JSON object")
    try:
        return _decode_fields(body)
    except msgspec.ValidationError:
        raise ApiError(400, "the body must be a JSON object") from None


def has_field(body: bytes, name: str) -> bool:
    """Return whether a body is a JSON object with the field `name`."""
    try:
        return name in _decode_fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _check_names(fields: dict[str, msgspec.Raw], kind: type[Struct]) -> list[str]:
    """Return the names that mean nothing here; refuse those that mean something not served."""
    ignored = []
    refused = UNSUPPORTED.get(kind, {})
    for name, raw in fields.items():
        if name in kind.__struct_fields__:
            if name == "stream_options":
                ignored += _unknown_options(raw)
            continue
        if name not in refused:
            ignored.append(name)
        elif (value := msgspec.json.decode(raw)) is not None and value not in refused[name].harmless:
            raise ApiError(400, f"{name} {refused[name].advice}", name)
    return ignored


def _unknown_options(raw: msgspec.Raw) -> list[str]:
    try:
        names = _decode_fields(raw)
    except msgspec.ValidationError:  # not an object: the decoder of the request says so
        return []
    return [f"stream_options.{name}" for name in names if name not in StreamOptions.__struct_fields__]


@cache
def _decoder(kind: type) -> msgspec.json.Decoder:
    return msgspec.json.Decoder(kind)


def invalid(error: msgspec.ValidationError, under: str = "") -> ApiError:
    """Turn msgspec's text into ours: "Expected `int | null`, got `str` - at `$.n`" names the field n."""
    text, _, path = str(error).partition(" - at ")
    path = path.removeprefix("`key` in ").strip("`").removeprefix("$").replace("[...]", "")
    param = under + path if under else path.removeprefix(".")
    text = text.replace(" | null", "").replace("`", "")
    missing = re.fullmatch(r"Object missing required field (\w+)", text)
    if missing:
        param = f"{param}.{missing[1]}" if param else missing[1]
        return ApiError(400, f"{param} is required", param)
    return ApiError(400, f"{param}: {text[:1].lower()}{text[1:]}", param or None)


def convert(value: Any, kind: type, param: str) -> Any:
    """Convert a decoded value to `kind`, or raise ApiError 400 naming `param`."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as e:
        raise invalid(e, param) from None


def ignored_header(names: list[str]) -> dict[str, str]:
    """Return the response header that lists ignored fields, if there are any."""
    if not names:
        return {}
    return {"x-rvllm-ignored-fields": ",".join(quote(n[:64], safe="") for n in names[:32])}
