"""A server as a process of its own, for tests of starting, signals and what a user sees."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator

READY = re.compile(r"listening on (\S+)")


class Process:
    """A server with its standard output and its log."""

    def __init__(self, *argv: str, module: str = "rvllm.serve"):
        self.popen = subprocess.Popen(
            [sys.executable, "-m", module, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.log = ""

    def wait_ready(self) -> str:
        """Return the URL, once it is logged."""
        for line in self.popen.stderr:
            self.log += line
            if found := READY.search(line):
                return found[1]
        raise AssertionError(self.log)

    def end(self, timeout_s: float = 20.0) -> int:
        """Wait for the end; return the exit code and keep the rest of the log."""
        out, err = self.popen.communicate(timeout=timeout_s)
        self.out, self.log = out, self.log + err
        return self.popen.returncode


@contextlib.contextmanager
def process(*argv: str) -> Iterator[Process]:
    running = Process(*argv)
    try:
        yield running
    finally:
        if running.popen.poll() is None:
            running.popen.kill()
            running.popen.communicate()
