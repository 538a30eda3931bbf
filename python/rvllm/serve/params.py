"""From a request's fields to SamplingParams: request over generation_config.json over the API's defaults."""

from __future__ import annotations

from typing import Any

from rvllm.request import SamplingParams
from rvllm.serve.errors import ApiError
from rvllm.serve.schema import GenerationRequest

_SAME_NAME = (
    "n",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "min_tokens",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "logit_bias",
    "allowed_token_ids",
    "bad_words",
    "skip_special_tokens",
    "spaces_between_special_tokens",
)


def sampling_params(
    req: GenerationRequest,
    defaults: dict[str, object],
    *,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> SamplingParams:
    """Build the parameters of `req`; `defaults` are the model's own. Ranges are checked by Engine.submit."""
    fields: dict[str, Any] = {}
    for name in _SAME_NAME:
        value = getattr(req, name)
        if value is None:
            value = defaults.get(name)
        if value is not None:
            fields[name] = value
    if req.seed == -1:  # as in the reference: a fresh one
        fields["seed"] = None
    if req.stop is not None:
        fields["stop"] = [req.stop] if isinstance(req.stop, str) else req.stop
    return SamplingParams(max_tokens=max_tokens, logprobs=logprobs, prompt_logprobs=prompt_logprobs, **fields)


def resolve_max_tokens(
    asked: int | None, field: str, default: int | None, n_prompt: int, max_model_len: int
) -> int | None:
    """Return the limit of output tokens. One that was asked for and does not fit is refused, a default gives way."""
    if asked is None:
        return default
    if n_prompt < max_model_len < n_prompt + asked:
        raise ApiError(
            400,
            f"{field} is too large: {asked}. This model's maximum context length is {max_model_len} tokens and the "
            f"prompt has {n_prompt} ({asked} > {max_model_len} - {n_prompt}).",
            field,
        )
    return asked


def truncate(ids: list[int], limit: int | None, asked: int | None, max_model_len: int) -> list[int]:
    """Keep the last `limit` tokens of a prompt; -1 keeps what leaves room for the answer."""
    if limit is None:
        return ids
    if limit == -1:
        limit = max(max_model_len - max(asked or 1, 1), 1)
    return ids[len(ids) - limit :] if len(ids) > limit else ids


def check_common(req: GenerationRequest, policy: str) -> None:
    """Raise for combinations of fields that cannot be obeyed."""
    if req.stream_options is not None and not req.stream:
        raise ApiError(400, "stream_options is only allowed when stream is true", "stream_options")
    if req.truncate_prompt_tokens == 0:
        raise ApiError(400, "truncate_prompt_tokens must be -1 or at least 1, got 0", "truncate_prompt_tokens")
    if req.prompt_logprobs is not None:
        if req.prompt_logprobs < 0:
            raise ApiError(400, f"prompt_logprobs must be at least 0, got {req.prompt_logprobs}", "prompt_logprobs")
        if req.stream:
            raise ApiError(400, "prompt_logprobs is not available when stream is true", "prompt_logprobs")
    if req.priority and policy != "priority":
        raise ApiError(
            400, f"priority is {req.priority}, but the server runs without --scheduling-policy priority", "priority"
        )
