"""Find stop strings in text that arrives in pieces, without sending their beginnings.

An Aho-Corasick automaton over the stop strings: linear in the text whatever the strings are, and its state is exactly
the longest end of the text that may still become a stop string, which is what must be held back.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache


class StopStrings:
    """The automaton for one set of stop strings. Immutable: shared by every matcher of the same set."""

    __slots__ = ("depth", "fail", "first", "goto", "stop")

    def __init__(self, stops: Sequence[str]):
        self.goto: list[dict[str, int]] = [{}]
        self.depth: list[int] = [0]
        self.stop: list[str | None] = [None]  # the longest stop string that ends in this state
        for text in stops:
            state = 0
            for char in text:
                if char not in self.goto[state]:
                    self.goto[state][char] = len(self.goto)
                    self.goto.append({})
                    self.depth.append(self.depth[state] + 1)
                    self.stop.append(None)
                state = self.goto[state][char]
            self.stop[state] = text
        self.fail = [0] * len(self.goto)  # the state of the longest proper suffix
        queue = deque(self.goto[0].values())
        while queue:
            state = queue.popleft()
            for char, child in self.goto[state].items():
                self.fail[child] = self._next(self.fail[state], char)
                self.stop[child] = self.stop[child] or self.stop[self.fail[child]]
                queue.append(child)
        # Most text holds no first character of any stop string; a character class skips it at C speed.
        self.first = re.compile(f"[{''.join(map(re.escape, self.goto[0]))}]")

    def _next(self, state: int, char: str) -> int:
        while state and char not in self.goto[state]:
            state = self.fail[state]
        return self.goto[state].get(char, 0)


@lru_cache(maxsize=64)
def compile_stops(stops: tuple[str, ...]) -> StopStrings:
    """Build the automaton, once per set of (non-empty) stop strings."""
    return StopStrings(stops)


class StopMatcher:
    """Hold back what may become a stop string; cut at the first one that is complete.

    The match that is complete first wins; of several that end at the same character, the longest. So the result does
    not depend on how the text was cut into pieces. With `include` the text goes through the stop string, and nothing
    needs to be held back.
    """

    __slots__ = ("_held", "_include", "_state", "_stops", "matched")

    def __init__(self, stops: StopStrings, include: bool = False):
        self._stops = stops
        self._include = include
        self._state = 0
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str, armed: bool = True) -> tuple[str, int]:
        """Add text; return what is now safe to send, and how much of `text` was used (less than all after a match).

        Not armed, a complete stop string is passed over as ordinary text.
        """
        stops, state, begin = self._stops, self._state, 0
        if state == 0:
            found = stops.first.search(text)
            if found is None:
                return text, len(text)
            begin = found.start()
        goto, fail, stop_of = stops.goto, stops.fail, stops.stop
        for i in range(begin, len(text)):
            char = text[i]
            while state and char not in goto[state]:
                state = fail[state]
            state = goto[state].get(char, 0)
            stop = stop_of[state]
            if stop is not None and armed:
                self.matched = stop
                out = self._held + text[: i + 1]
                self._held = ""
                return (out if self._include else out[: -len(stop)]), i + 1
        self._state = state
        if self._include:
            return text, len(text)
        out = self._held + text
        cut = len(out) - stops.depth[state]
        self._held = out[cut:]
        return out[:cut], len(text)

    def flush(self) -> str:
        """Release what is held back: no more text will come."""
        held, self._held, self._state = self._held, "", 0
        return held
