"""Text to token ids and back, from the tokenizer.json of a model directory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .detokenizer import Detokenizer
from .errors import InvalidRequestError, ModelError
from .special_tokens import content_of, named_tokens, read_json, tokenizer_settings
from .token_text import Pieces, vocabulary_of

if TYPE_CHECKING:
    import tokenizers

# Longer texts are tokenised on another thread: about 0.3 ms each, the price of a few dozen streamed tokens.
MAX_INLINE_CHARS = 2048
# How far back a prompt can matter to the text that follows it: an unfinished character, a skipped special token.
MAX_PROMPT_TAIL = 16


class Tokenizer:
    """A tokenizer.json and what tokenizer_config.json and special_tokens_map.json say about it."""

    def __init__(self, backend: tokenizers.Tokenizer, settings: dict[str, Any] | None = None):
        """Wrap a `tokenizers` object; `settings` is the content of tokenizer_config.json."""
        settings = settings or {}
        self.backend = backend
        backend.no_truncation()
        backend.no_padding()
        _add_tokens(backend, settings)
        named = named_tokens(settings)
        self.bos_token_id, self.eos_token_id, self.pad_token_id = (
            backend.token_to_id(named[name]) if name in named else None
            for name in ("bos_token", "eos_token", "pad_token")
        )
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self.vocab_size: int = max(backend.get_vocab_size(with_added_tokens=True), *(i + 1 for i in added), 0)

    @classmethod
    def from_dir(cls, path: str | Path) -> Tokenizer:
        """Load the tokenizer of a model directory. Raises ModelError naming the file that is missing or broken."""
        directory = Path(path)
        file = directory / "tokenizer.json"
        if not file.is_file():
            raise ModelError(f"{file}: no such file{_hint(directory)}")
        settings = tokenizer_settings(directory)
        if "added_tokens_decoder" not in settings:
            settings["added_tokens_decoder"] = {
                token_id: {"content": text} for text, token_id in read_json(directory / "added_tokens.json").items()
            }
        # One text at a time: its thread pool would only compete with the engine's.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import tokenizers

        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception
            raise ModelError(f"{file}: not a usable tokenizer: {error}") from None
        return cls(backend, settings)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text; the GIL is released meanwhile."""
        try:
            # Unlike encode() it releases the GIL, and it skips the offsets, which nothing here needs.
            return self.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
        except TypeError:
            raise InvalidRequestError("the text is not valid Unicode: it holds a lone surrogate") from None

    async def encode_async(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text without keeping the event loop: long texts go to another thread."""
        if len(text) <= MAX_INLINE_CHARS:
            return self.encode(text, add_special_tokens)
        return await asyncio.to_thread(self.encode, text, add_special_tokens)

    def encode_bad_words(self, words: Iterable[str]) -> list[list[int]]:
        """Return the token sequences that spell each word, at the start of a text and after a space."""
        sequences: dict[tuple[int, ...], None] = {}
        for word in words:
            for text in (word.lstrip(), " " + word.lstrip()):
                ids = self.encode(text, add_special_tokens=False) if text.strip() else []
                if not ids and text:
                    raise InvalidRequestError(f"bad_words: {word!r} has no tokens", "bad_words")
                if ids:
                    sequences[tuple(ids)] = None
        return [list(ids) for ids in sequences]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of token ids; ids that the vocabulary lacks have none."""
        try:
            return self.backend.decode(ids, skip_special_tokens=skip_special_tokens)
        except OverflowError:
            raise InvalidRequestError("a token id is negative or does not fit 32 bits") from None

    def token_str(self, token_id: int) -> str:
        """Return the text of one token as it stands inside a text; bytes that are no character become U+FFFD."""
        piece = self._shown[token_id]
        return piece.decode(errors="replace") if isinstance(piece, bytes) else piece or ""

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one token: those of consecutive tokens together are the text."""
        piece = self._shown[token_id]
        return piece if isinstance(piece, bytes) else (piece or "").encode()

    def detokenizer(
        self,
        *,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
        stop: Sequence[str] = (),
        include_stop: bool = False,
        prompt_tail: Sequence[int] = (),
        min_tokens: int = 0,
    ) -> Detokenizer:
        """Start the text of one choice.

        prompt_tail: the prompt's last tokens (or all of it): the text continues it, so a first token "▁world" is
        " world". Before `min_tokens` tokens stop strings are ordinary text. Decoders that put spaces between tokens
        leave them out between added tokens when neither skip_special_tokens nor spaces_between_special_tokens is set.
        """
        if "" in stop:
            raise InvalidRequestError("stop: a stop string is empty", "stop")
        pieces = self._unskipped if skip_special_tokens else self._shown
        join_added = not (skip_special_tokens or spaces_between_special_tokens)
        decoder = self._vocabulary.decoder(pieces, prompt_tail[-MAX_PROMPT_TAIL:], join_added)
        return Detokenizer(decoder, stop, include_stop=include_stop, min_tokens=min_tokens)

    @cached_property
    def _vocabulary(self) -> Any:
        return vocabulary_of(self.backend)

    @cached_property
    def _shown(self) -> Pieces:
        return Pieces(self._vocabulary.piece)

    @cached_property
    def _unskipped(self) -> Pieces:
        special, shown = self.special_ids, self._shown
        return Pieces(lambda token_id: None if token_id in special else shown[token_id])


def _hint(directory: Path) -> str:
    if not directory.is_dir():
        return f" ({directory} is not a directory)"
    if (directory / "tokenizer.model").is_file():
        return " (tokenizer.model alone is not enough: save the tokenizer with transformers as a fast tokenizer)"
    return ""


def _add_tokens(backend: tokenizers.Tokenizer, settings: dict[str, Any]) -> None:
    """Add the tokens that the settings name and tokenizer.json lacks, in the order transformers does.

    A token with a name (eos_token, ...) becomes special; one that is merely listed keeps the flags of tokenizer.json.
    """
    from tokenizers import AddedToken

    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    for token_id, token in sorted(_declared_tokens(settings).items()):
        text = content_of(token)
        if text is None:
            raise ModelError(f"tokenizer_config.json: added_tokens_decoder[{token_id}] has no content")
        if text not in known:
            fields = token.items() if isinstance(token, dict) else ()
            flags = {name: flag for name, flag in fields if isinstance(flag, bool)}
            known[text] = AddedToken(text, **flags)
            backend.add_tokens([known[text]])
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    extra = list(extra.values()) if isinstance(extra, dict) else extra
    named = list(named_tokens(settings).values())
    for text in [*named, *(text for text in map(content_of, extra) if text is not None)]:
        token = known.get(text) or AddedToken(text, normalized=False)
        if text not in known or (text in named and not token.special):
            token.special = True
            known[text] = token
            backend.add_special_tokens([token])


def _declared_tokens(settings: dict[str, Any]) -> dict[int, Any]:
    declared = settings.get("added_tokens_decoder", {})
    try:
        return {int(token_id): token for token_id, token in declared.items()}
    except (AttributeError, TypeError, ValueError):
        raise ModelError("tokenizer_config.json: added_tokens_decoder is not an object with token ids") from None
