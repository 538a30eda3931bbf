"""The special tokens that a model directory names: bos_token, eos_token and so on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import ModelError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one. Raises ModelError naming a file that is broken."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def content_of(token: Any) -> str | None:
    """Return the text of a token written as a string or as {"content": ...}."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def tokenizer_settings(directory: Path) -> dict[str, Any]:
    """Merge tokenizer_config.json with, where that has no added_tokens_decoder, the older special_tokens_map.json."""
    settings = read_json(directory / "tokenizer_config.json")
    if "added_tokens_decoder" not in settings:
        settings |= read_json(directory / "special_tokens_map.json")
    return settings


def named_tokens(settings: dict[str, Any]) -> dict[str, str]:
    """Return {"bos_token": "<s>", ...}: every setting that ends in _token, as templates see them."""
    named = ((name, content_of(token)) for name, token in settings.items() if name.endswith("_token"))
    return {name: text for name, text in named if text is not None}
