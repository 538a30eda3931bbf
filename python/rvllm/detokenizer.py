"""Text of one running choice: from token ids as they come to text that may be sent."""

from __future__ import annotations

from collections.abc import Sequence

from .stop_strings import StopMatcher, compile_stops
from .token_text import TextDecoder


class Detokenizer:
    """Turn the tokens of one choice into text: whole characters only, and nothing that may begin a stop string.

    All texts together equal decoding all tokens at once, up to the stop string that ended them.

    stopped: the stop string that was completed, or None; tokens after it are ignored.
    n_tokens: the tokens that count, up to and including the one that completed the stop string.
    """

    __slots__ = ("_decode", "_decoder", "_matcher", "_min_tokens", "n_tokens", "stopped")

    def __init__(
        self, decoder: TextDecoder, stop: Sequence[str] = (), *, include_stop: bool = False, min_tokens: int = 0
    ):
        self._decoder = decoder
        self._decode = decoder.push
        self._matcher = StopMatcher(compile_stops(tuple(stop)), include_stop) if stop else None
        self._min_tokens = min_tokens  # stop strings completed by one of these are ordinary text
        self.n_tokens = 0
        self.stopped: str | None = None

    def push(self, ids: Sequence[int]) -> str:
        """Add the next tokens; return the text that is now safe to send."""
        if self._matcher is None:
            self.n_tokens += len(ids)
            return self._decode(ids[0]) if len(ids) == 1 else "".join(map(self._decode, ids))
        if self.stopped is not None:
            return ""
        sent = ""
        for token_id in ids:
            self.n_tokens += 1
            text = self._decode(token_id)
            if text:
                sent += self._match(self._matcher, text)
                if self.stopped is not None:
                    break
        return sent

    def finish(self) -> str:
        """Return what was still held back; the sequence has ended for another reason than a stop string.

        The last characters may yet complete a stop string: look at `stopped` afterwards.
        """
        if self.stopped is not None:
            return ""
        text = self._decoder.finish()
        if self._matcher is None:
            return text
        sent = self._match(self._matcher, text)
        return sent if self.stopped is not None else sent + self._matcher.flush()

    def _match(self, matcher: StopMatcher, text: str) -> str:
        sent, n_used = matcher.push(text, self.n_tokens > self._min_tokens)
        if matcher.matched is not None:
            self.stopped = matcher.matched
            self.n_tokens = self._decoder.n_tokens_for(n_used)
        return sent
