"""From token ids to text, one token at a time, equal to decoding them all at once.

What a token contributes depends on the tokenizer's decoder. Three kinds:
- byte-level (GPT-2, Llama 3, Qwen): a token is bytes, the text is all bytes read as UTF-8;
- byte fallback (Llama 2, Mistral, Gemma): a token is text or, spelled <0xNN>, one byte; a run of such bytes counts as
  a whole, and if it is not UTF-8 every byte of it becomes U+FFFD;
- anything else (WordPiece, Metaspace, ...): the difference that a token makes to the decoding of a short window.
"""

from __future__ import annotations

import json
import re
from codecs import utf_8_decode
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import tokenizers

REPLACEMENT = "\ufffd"
# Bytes of a valid run that wait for its end; past that their complete characters are sent, so that a language spelled
# in bytes still streams. (A later invalid byte of the same run can then no longer turn them into U+FFFD.)
MAX_HELD_RUN_BYTES = 32
MAX_WINDOW_TOKENS = 64
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TextDecoder(Protocol):
    """What turns tokens into text; one per sequence."""

    def push(self, token_id: int) -> str:
        """Add a token; return the text that can no longer change."""

    def finish(self) -> str:
        """Return the text that was still open, as decoding everything at once shows it."""

    def n_tokens_for(self, n_chars: int) -> int:
        """Return how many tokens the first `n_chars` of the text returned last take, counted from the first token."""


def byte_of_char() -> dict[str, int]:
    """Return the bytes that the characters of a byte-level vocabulary stand for (GPT-2's printable alphabet)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


class Pieces(dict):
    """What each token id stands for, filled in as ids are first seen.

    str: whole characters; bytes: less than that; None: nothing at all (skipped, or an id the vocabulary lacks).
    """

    def __init__(self, read: Callable[[int], str | bytes | None]):
        super().__init__()
        self._read = read

    def __missing__(self, token_id: int) -> str | bytes | None:
        piece = self[token_id] = self._read(token_id)
        return piece


class ByteLevelVocabulary:
    """Token id -> text or bytes for a byte-level vocabulary."""

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        self._token_of = tokenizer.id_to_token
        self._byte_of_char = byte_of_char()

    def piece(self, token_id: int) -> str | bytes | None:
        token = self._token_of(token_id)
        if token is None:
            return None
        try:
            data = bytes(map(self._byte_of_char.__getitem__, token))
        except KeyError:  # an added token with a character outside the alphabet stands for itself
            return token
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data

    def decoder(self, pieces: Pieces, tail: Sequence[int], join_added: bool) -> TextDecoder:
        return ByteLevelText(pieces, tail)


class ByteLevelText:
    """Incremental UTF-8 over the bytes of the tokens."""

    __slots__ = ("_open", "_pieces", "_pushed")

    def __init__(self, pieces: Pieces, tail: Sequence[int] = ()):
        self._pieces = pieces
        self._open = b""  # the beginning of a character
        self._pushed = 0
        for token_id in tail:
            self.push(token_id)
        self._pushed = 0

    def push(self, token_id: int) -> str:
        self._pushed += 1
        piece = self._pieces[token_id]
        if type(piece) is str and not self._open:
            return piece
        if not piece:
            return ""
        if type(piece) is str:  # starts a character, so the open one stays incomplete
            return self.finish() + piece
        data = self._open + piece
        text, used = utf_8_decode(data, "replace", False)
        self._open = data[used:]
        return text

    def finish(self) -> str:
        text, _ = utf_8_decode(self._open, "replace", True)
        self._open = b""
        return text

    def n_tokens_for(self, n_chars: int) -> int:
        return self._pushed


class FallbackVocabulary:
    """Token id -> text or one byte for a vocabulary with <0xNN> tokens.

    replace: (old, new) applied to every token; strip: a character and how many of it are cut from the very start.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, replace: list[tuple[str, str]], strip: tuple[str, int]):
        self._token_of = tokenizer.id_to_token
        self._replace = replace
        self._strip = strip

    def piece(self, token_id: int) -> str | bytes | None:
        token = self._token_of(token_id)
        if token is None:
            return None
        for old, new in self._replace:
            token = token.replace(old, new)
        byte = _BYTE_TOKEN.fullmatch(token)
        return bytes([int(byte[1], 16)]) if byte else token

    def decoder(self, pieces: Pieces, tail: Sequence[int], join_added: bool) -> TextDecoder:
        return FallbackText(pieces, *self._strip, tail)


class FallbackText:
    """Text tokens as they are, runs of byte tokens as a whole, the first characters stripped.

    A run is held until it ends (or is long, or cannot become UTF-8 any more), because a bad byte spoils all of it.
    """

    __slots__ = (
        "_ends",
        "_ends_at",
        "_n_cut",
        "_pieces",
        "_places",
        "_pushed",
        "_run",
        "_spoilt",
        "_strip",
        "_strip_left",
    )

    def __init__(self, pieces: Pieces, strip: str = " ", n_strip: int = 0, tail: Sequence[int] = ()):
        self._pieces = pieces
        self._strip = strip
        self._strip_left = n_strip
        self._run = bytearray()  # the open run
        self._places: list[int] = []  # which token each byte of the run came from
        self._spoilt = False  # the open run is known not to be UTF-8
        self._pushed = 0
        # Of the run's characters returned at token `_ends_at`: the token of each one's last byte, and how many of
        # them were stripped.
        self._ends: list[int] = []
        self._ends_at = 0
        self._n_cut = 0
        for token_id in tail:
            self.push(token_id)
        self._stripped(self._release_characters())
        self._places = [0] * len(self._run)
        self._pushed = 0

    def push(self, token_id: int) -> str:
        self._pushed += 1
        piece = self._pieces[token_id]
        if type(piece) is str:
            if not self._run and not self._spoilt and not self._strip_left:
                return piece
            return self._stripped(self._end_run() + piece)
        if piece is None:
            return ""
        if self._spoilt:
            return REPLACEMENT
        self._run += piece
        self._places.append(self._pushed)
        try:
            utf_8_decode(self._run, "strict", False)
        except UnicodeDecodeError:
            text = self._end_run()
            self._spoilt = True
            return self._stripped(text)
        return self._stripped(self._release_characters()) if len(self._run) >= MAX_HELD_RUN_BYTES else ""

    def finish(self) -> str:
        return self._stripped(self._end_run())

    def n_tokens_for(self, n_chars: int) -> int:
        place = n_chars + self._n_cut - 1
        return self._ends[place] if self._ends_at == self._pushed and place < len(self._ends) else self._pushed

    def _end_run(self) -> str:
        """Close the run and return its text."""
        run, places = bytes(self._run), self._places
        self._run, self._places, self._spoilt = bytearray(), [], False
        try:
            text = run.decode()
        except UnicodeDecodeError:
            self._set_ends(places)
            return REPLACEMENT * len(run)
        self._set_ends(_last_places(text, places))
        return text

    def _release_characters(self) -> str:
        """Return the complete characters of a valid run; what is left begins a character."""
        text, used = utf_8_decode(self._run, "strict", False)
        self._set_ends(_last_places(text, self._places))
        del self._run[:used], self._places[:used]
        return text

    def _set_ends(self, ends: list[int]) -> None:
        self._ends, self._ends_at, self._n_cut = ends, self._pushed, 0

    def _stripped(self, text: str) -> str:
        while self._strip_left and text:
            if text[0] != self._strip:
                self._strip_left = 0
                break
            text = text[1:]
            self._strip_left -= 1
            self._n_cut += 1
        return text


def _last_places(text: str, places: list[int]) -> list[int]:
    """Return the token of each character's last byte."""
    ends = []
    end = 0
    for char in text:
        end += len(char.encode())
        ends.append(places[end - 1])
    return ends


class WindowVocabulary:
    """Any other decoder: a token has no text of its own, so decode a window of recent tokens."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, added: dict[int, str]):
        self._tokenizer = tokenizer
        self._added = added
        self._alone = Pieces(lambda token_id: tokenizer.decode([token_id], skip_special_tokens=False))

    def piece(self, token_id: int) -> str | bytes | None:
        """Return what the token adds to itself: its text inside a sequence rather than at the start of one."""
        if token_id in self._added or self._tokenizer.id_to_token(token_id) is None:
            return self._added.get(token_id)
        once = self._tokenizer.decode([token_id], skip_special_tokens=False)
        twice = self._tokenizer.decode([token_id, token_id], skip_special_tokens=False)
        return twice[len(once) :] if twice.startswith(once) and len(twice) > len(once) else once

    def decoder(self, pieces: Pieces, tail: Sequence[int], join_added: bool) -> TextDecoder:
        return WindowText(self._tokenizer.decode, pieces, self._alone, tail, self._added if join_added else {})


class WindowText:
    """The difference between decoding a window with and without its newest tokens.

    The window starts at the tokens that gave the text sent last: decoders look at a neighbour, not further. Between
    two tokens of `joined` no space is put.
    """

    __slots__ = (
        "_after_joined",
        "_alone",
        "_decode",
        "_joined",
        "_pieces",
        "_pushed",
        "_sent",
        "_sent_text",
        "_window",
    )

    def __init__(
        self,
        decode: Callable[..., str],
        pieces: Pieces,
        alone: Pieces,
        tail: Sequence[int] = (),
        joined: dict[int, str] | None = None,
    ):
        self._decode = decode
        self._pieces = pieces
        self._alone = alone  # the decoding of each token by itself: what most windows shrink to
        self._joined = joined or {}
        self._window = [token_id for token_id in tail if pieces[token_id] is not None]
        self._sent = len(self._window)  # tokens of the window whose text has been sent
        self._sent_text = self._text()
        self._after_joined = bool(self._window) and self._window[-1] in self._joined
        self._pushed = 0

    def push(self, token_id: int) -> str:
        self._pushed += 1
        if self._pieces[token_id] is None:
            return ""
        self._window.append(token_id)
        text = self._text()
        after_joined, self._after_joined = self._after_joined, token_id in self._joined
        if after_joined and self._after_joined:
            self._advance(text)
            return self._joined[token_id]
        if text.endswith(REPLACEMENT) and len(self._window) - self._sent < MAX_WINDOW_TOKENS:
            return ""
        return self._advance(text)

    def finish(self) -> str:
        return self._advance(self._text()) if len(self._window) > self._sent else ""

    def n_tokens_for(self, n_chars: int) -> int:
        return self._pushed

    def _text(self) -> str:
        return self._decode(self._window, skip_special_tokens=False) if self._window else ""

    def _advance(self, text: str) -> str:
        new = text[len(self._sent_text) :]
        window = self._window = self._window[self._sent :]
        self._sent = len(window)
        self._sent_text = self._alone[window[0]] if len(window) == 1 else self._text()
        return new


Vocabulary = ByteLevelVocabulary | FallbackVocabulary | WindowVocabulary


def vocabulary_of(tokenizer: tokenizers.Tokenizer) -> Vocabulary:
    """Choose the kind of vocabulary from the tokenizer's decoder, as tokenizer.json spells it."""
    decoder = tokenizer.decoder
    state: dict[str, Any] = json.loads(decoder.__getstate__()) if decoder is not None else {"type": None}
    steps = state["decoders"] if state["type"] == "Sequence" else [state]
    if [step["type"] for step in steps] == ["ByteLevel"]:
        return ByteLevelVocabulary(tokenizer)
    n_replace = 0
    while n_replace < len(steps) and "String" in steps[n_replace].get("pattern", ()):
        n_replace += 1
    replace = [(step["pattern"]["String"], step["content"]) for step in steps[:n_replace]]
    match steps[n_replace:]:
        case [{"type": "ByteFallback"}, {"type": "Fuse"}]:
            return FallbackVocabulary(tokenizer, replace, (" ", 0))
        case [{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "stop": 0, "content": char, "start": n}]:
            return FallbackVocabulary(tokenizer, replace, (char, n))
    added = {token_id: token.content for token_id, token in tokenizer.get_added_tokens_decoder().items()}
    return WindowVocabulary(tokenizer, added)
