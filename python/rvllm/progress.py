"""What is printed on stderr while a model loads."""

from __future__ import annotations

import sys
import time
from typing import TextIO

WIDTH = 30
# A bar appears when loading takes longer than QUIET_S; where there is no terminal a line is written every LINE_S.
QUIET_S = 0.5
REDRAW_S = 0.1
LINE_S = 5.0


class ProgressBar:
    """Callable as `progress(what, done, total)` with bytes: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, out: TextIO | None = None):
        self._out = out or sys.stderr
        self._tty = self._out.isatty()
        self._shown = time.monotonic() + (QUIET_S - REDRAW_S if self._tty else 0.0)
        self._drawn = False

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._drawn:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._shown < (REDRAW_S if self._tty else LINE_S):
            return
        self._shown = now
        share = done / total if total else 1.0
        sizes = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        if self._tty:
            bar = ("#" * round(share * WIDTH)).ljust(WIDTH, ".")
            self._out.write(f"\r\x1b[K{what} [{bar}] {share:4.0%} {sizes}")
            self._drawn = True
        else:
            self._out.write(f"{what}: {share:.0%}, {sizes}\n")
        self._out.flush()
