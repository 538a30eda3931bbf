"""`rvllm benchmark` and the client of bench/serve.py: that what they report is what happened."""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from rvllm.benchmark import StepTimes, parse_batches, spread
from rvllm.cli import main
from rvllm.errors import RvllmError

sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))
import http_load
from random_models import write_model


def test_spread_leaves_out_what_grows_with_the_context():
    growing = [4e-3 * (1 + 0.05 * i / 256) for i in range(256)]
    assert spread(growing) < 2e-3
    rng = random.Random(0)
    jitter = [t * (1.03 if rng.random() < 0.05 else 1.0) for t in growing]
    assert spread(jitter) == pytest.approx(0.03, abs=2e-3)


def test_steps_count_when_all_decode_and_did_before():
    times = StepTimes()
    handle = SimpleNamespace(last_token=None)
    times.note(handle, 1)
    for last_token, n_tokens in [(1.0, 1), (2.0, 2), (3.0, 2), (4.5, 2), (5.0, 1), (6.0, 2)]:
        for _ in range(n_tokens):
            handle.last_token = last_token
            times.note(handle, 1)
    assert times.decodes(2) == [1.0, 1.5]
    assert times.decodes(1) == []


def test_batches():
    assert parse_batches("1, 4x9,16x2048", 32) == [(1, 32), (4, 9), (16, 2048)]
    for text in ("", "1,x", "0", "2x0", "-1"):
        with pytest.raises(RvllmError, match="is not a list of batch sizes"):
            parse_batches(text, 32)


def test_rows_of_decodes_and_of_prefills(tmp_path, capsys):
    argv = ["benchmark", write_model(tmp_path, "32m"), "--load-format", "dummy", "--threads", "1"]
    assert main([*argv, "--n", "2,1x16", "--output-len", "12", "--repeat", "2", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["n"], r["prompt_len"], r["prefix_hits"]) for r in rows] == [(2, 32, 0), (1, 16, 0)]
    for row in rows:
        assert row["ours"] == pytest.approx(row["n"] * 12 / row["ms"] * 1e3, rel=1e-3)
        assert row["ttft_ms"] < row["ms"]
        assert row["step_ms"] < row["ms"] and row["step_spread"] >= 0
    assert main([*argv, "--n", "1x16", "--output-len", "1"]) == 0
    line = capsys.readouterr().out.splitlines()[1].split()
    assert line[:2] == ["1", "16"] and line[6:9] == ["-", "-", "-"]
    assert main([*argv, "--n", "1x100000"]) == 2
    assert "do not fit the context" in capsys.readouterr().err


class _Server:
    """Answers every request with the same bytes, cut into pieces that are sent one by one."""

    def __init__(self, pieces: list[bytes]):
        self.pieces = pieces
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.requests: list[bytes] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while request := connection.recv(1 << 16):
            self.requests.append(request)
            for piece in self.pieces:
                connection.sendall(piece)


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY = b"".join(b"10\r\ndata: {%d}\n\n\r\n" % i for i in range(5)) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 3, 5, 6, 7, 11, 1000])
def test_client_counts_every_event_once(size):
    answer = HEAD + BODY
    server = _Server([answer[i : i + size] for i in range(0, len(answer), size)])
    load = http_load.run(server.port, [b"request %d" % i for i in range(7)], 3)
    assert sorted(server.requests) == [b"request %d" % i for i in range(7)]
    assert [len(r.events) for r in load.requests] == [6] * 7
    assert load.ended == max(r.events[-1] for r in load.requests) and load.started <= load.requests[0].sent
    assert all(r.events == sorted(r.events) and r.sent <= r.events[0] for r in load.requests)


def test_client_tells_what_a_server_refuses():
    server = _Server([b'HTTP/1.1 429 Too Many Requests\r\n\r\n{"error": "full"}'])
    with pytest.raises(ConnectionError, match="429"):
        http_load.run(server.port, [b"request"], 1)
