"""An HTTP client that only takes times: streamed requests over keep-alive connections, one epoll loop, no parsing.

Tokens are counted as events. A client that is slower than the server would measure itself, so what it adds is noted
too: `lag` is how long an answer that had arrived waited until it was read.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from dataclasses import dataclass, field

OK, EVENT, END = b"HTTP/1.1 200", b"data: ", b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class Times:
    """One request: when it was sent, and when each of its events came (the last is [DONE])."""

    sent: float
    events: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Load:
    """What a run of requests gave. Times are seconds of one clock; `lags` has one entry per wake of the client."""

    started: float
    ended: float
    requests: list[Times]
    lags: list[float]


class _Connection:
    """One connection, which sends a request when the answer before it is complete."""

    def __init__(self, port: int):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.times = Times(0.0)
        self.tail = b""

    def send(self, request: bytes) -> Times:
        self.times = Times(time.perf_counter())
        self.tail = b""
        if self.socket.send(request) < len(request):
            raise ConnectionError("the request does not fit the socket's buffer")
        return self.times

    def read(self) -> bool:
        """Note the events that have come; return whether the answer is complete."""
        data = self.socket.recv(1 << 16)
        now = time.perf_counter()
        if not data:
            raise ConnectionError(f"the server closed the connection after {self.tail!r}")
        data = self.tail + data
        n = data.count(EVENT)
        if n:
            self.times.events += [now] * n
        elif not self.times.events and not data.startswith(OK[: len(data)]):
            raise ConnectionError(data[:500].decode(errors="replace"))
        # Not so long that it could hold an event.
        self.tail = data[-len(END) :] if self.times.events else data
        self.tail = self.tail.replace(EVENT, b"")
        return data.endswith(END)


def run(port: int, requests: list[bytes], at_a_time: int) -> Load:
    """Send `requests`, at most `at_a_time` of them unanswered, and return their times."""
    todo = iter(requests)
    done: list[Times] = []
    lags: list[float] = []
    open_: dict[int, _Connection] = {}
    gc.collect()
    gc.disable()
    started = time.perf_counter()
    with select.epoll() as poll:
        try:
            for _, request in zip(range(at_a_time), todo, strict=False):
                connection = _Connection(port)
                open_[connection.socket.fileno()] = connection
                poll.register(connection.socket, select.EPOLLIN)
                done.append(connection.send(request))
            n_left = len(open_)
            while n_left:
                ready = poll.poll()
                woken = time.perf_counter()
                for fd, _ in ready:
                    connection = open_[fd]
                    if connection.read():
                        request = next(todo, None)
                        if request is None:
                            n_left -= 1
                        else:
                            done.append(connection.send(request))
                lags.append(time.perf_counter() - woken)
        finally:
            gc.enable()
            for connection in open_.values():
                connection.socket.close()
    return Load(started, max(t.events[-1] for t in done), done, lags)
