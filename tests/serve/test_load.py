"""As many clients as the server runs at once, and more: shutting down, clients that vanish, a full queue.

On the CPU, and on a GPU where there is one (`-k cuda`): there with the shape of a 7B model and 256 sequences.
"""

import contextlib
import json
import random
import re
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from op_harness import skip_without_gpu
from rvllm._native import opcall

from .process import Process, process

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "bench"))
from random_models import write_model

N_SEQS = {"cpu": 48, "cuda": 256}
SHAPE = {"cpu": "32m", "cuda": "7b"}
ENDLESS = 1900  # tokens that no test waits for


class Clients:
    """Streams on sockets of their own, all read as they come."""

    def __init__(self, port: int):
        self.port = port
        self.poll = selectors.DefaultSelector()
        self.received: dict[socket.socket, bytearray] = {}
        self.open: set[socket.socket] = set()

    def send(self, n: int, max_tokens: int) -> list[socket.socket]:
        """Open n streams of random prompts."""
        rng = random.Random(len(self.received))
        socks = []
        for _ in range(n):
            body = {"prompt": [rng.randrange(256, 4096) for _ in range(20)], "max_tokens": max_tokens}
            payload = json.dumps(body | {"stream": True, "ignore_eos": True, "temperature": 0}).encode()
            sock = socket.create_connection(("127.0.0.1", self.port))
            head = f"POST /v1/completions HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {len(payload)}"
            sock.sendall(head.encode() + b"\r\n\r\n" + payload)
            sock.setblocking(False)
            self.received[sock] = bytearray()
            self.open.add(sock)
            self.poll.register(sock, selectors.EVENT_READ)
            socks.append(sock)
        return socks

    def read_until(self, done: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Read what comes until `done()` holds."""
        end = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < end, "did not happen in time"
            for key, _ in self.poll.select(0.05):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                data = sock.recv(1 << 16)
                self.received[sock] += data
                if not data:
                    self.close(sock)

    def close(self, sock: socket.socket) -> None:
        self.poll.unregister(sock)
        self.open.discard(sock)
        sock.close()

    def vanish(self, sock: socket.socket) -> None:
        """Reset the connection, as a machine does that lost its client."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close(sock)

    def n_events(self, sock: socket.socket) -> int:
        return self.received[sock].count(b"data: ")

    def get(self, path: str) -> str:
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while data := sock.recv(1 << 16):
                answer += data
        return answer.decode()

    def gauge(self, name: str) -> float:
        found = re.search(rf"^{name}{{[^}}]*}} (\S+)", self.get("/metrics"), re.MULTILINE)
        assert found is not None
        return float(found[1])

    def gauges(self) -> tuple[float, ...]:
        """Return the sequences that run, those that wait, and the share of blocks in use."""
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        return tuple(self.gauge(f"vllm:{name}") for name in names)


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> str:
    if request.param == "cuda":
        try:
            opcall.Cuda()
        except ValueError as e:
            skip_without_gpu(e)
    return request.param


@contextlib.contextmanager
def serving(device: str, directory: Path, *flags: str) -> Iterator[tuple[Process, Clients, int]]:
    """Serve random weights; give the process, its clients, and how many sequences it runs at once."""
    model = write_model(directory, SHAPE[device], tokenizer=True)
    n = N_SEQS[device]
    argv = [model, "--load-format", "dummy", "--device", device, "--max-num-seqs", str(n), "--max-model-len", "2048"]
    with process(*argv, "--host", "127.0.0.1", "--port", "0", *flags) as server:
        port = int(server.wait_ready().rsplit(":", 1)[1])
        yield server, Clients(port), n


def ended_well(server: Process) -> None:
    server.popen.send_signal(signal.SIGTERM)
    assert server.end() == 0
    assert "Traceback" not in server.log and "ERROR" not in server.log, server.log


def test_sigterm_while_all_sequences_run_and_others_wait(device, tmp_path):
    with serving(device, tmp_path, "--shutdown-timeout", "1", "--max-num-queued-reqs", "8") as (server, clients, n):
        running = clients.send(n, ENDLESS)
        clients.read_until(lambda: all(clients.n_events(s) > 2 for s in running))
        waiting = clients.send(8, ENDLESS)
        clients.read_until(lambda: clients.gauges()[:2] == (n, 8))
        server.popen.send_signal(signal.SIGTERM)
        started = time.monotonic()
        clients.read_until(lambda: not clients.open)
        assert server.end() == 0
        assert 0.9 < time.monotonic() - started < 8
        for sock in running + waiting:
            answer = bytes(clients.received[sock])
            assert b"data: [DONE]\n\n" in answer and b'"code":503' in answer
            assert answer.endswith(b"\r\n0\r\n\r\n")
        assert "Traceback" not in server.log and "ERROR" not in server.log, server.log


def test_clients_that_vanish_take_nothing_from_the_others(device, tmp_path):
    with serving(device, tmp_path) as (server, clients, n):
        stay, leave = clients.send(n // 2, 300), clients.send(n // 2, ENDLESS)
        queued = clients.send(20, ENDLESS)
        clients.read_until(lambda: all(clients.n_events(s) > 2 for s in stay + leave))
        for sock in leave + queued:
            clients.vanish(sock)
        clients.read_until(lambda: clients.gauges()[1] == 0)
        assert clients.gauges()[0] <= n // 2
        clients.read_until(lambda: not clients.open)
        for sock in stay:
            answer = bytes(clients.received[sock])
            assert b'"finish_reason":"length"' in answer and b"data: [DONE]\n\n" in answer
        clients.read_until(lambda: clients.gauges() == (0, 0, 0))
        (again,) = clients.send(1, 4)
        clients.read_until(lambda: not clients.open)
        assert b"data: [DONE]\n\n" in clients.received[again]
        ended_well(server)


def test_a_burst_beyond_the_queue_is_refused_and_the_rest_is_served(device, tmp_path):
    with serving(device, tmp_path, "--max-num-queued-reqs", "30") as (server, clients, n):
        socks = clients.send(2 * n + 50, 60)
        clients.read_until(lambda: not clients.open)
        answers = [bytes(clients.received[s]) for s in socks]
        refused = [a for a in answers if a.startswith(b"HTTP/1.1 429")]
        served = [a for a in answers if a.startswith(b"HTTP/1.1 200")]
        assert len(refused) + len(served) == len(socks)
        assert len(served) >= n + 30 and refused
        assert all(b"Retry-After: " in a for a in refused)
        assert all(b'"finish_reason":"length"' in a and b"data: [DONE]\n\n" in a for a in served)
        assert clients.gauges() == (0, 0, 0)
        ended_well(server)
