"""The server as a process: start, readiness, signals, sockets, and errors before there is a server."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from rvllm.flags import DEMO_MODEL

from .process import process


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def _post(port: int, body: dict) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/v1/completions", json.dumps(body))
    return connection


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse().status


def test_sigterm_drains():
    with process("--host", "127.0.0.1", "--port", "0") as server:
        port = _port(server.wait_ready())
        stream = _post(port, {"prompt": "a", "max_tokens": 300, "ignore_eos": True, "stream": True}).getresponse()
        assert stream.read(6) == b"data: "
        server.popen.send_signal(signal.SIGTERM)
        rest = stream.read()
        assert rest.endswith(b"data: [DONE]\n\n")
        assert b'"finish_reason":"length"' in rest
        assert server.end() == 0
        assert "draining: 1 requests in flight" in server.log
        assert "Traceback" not in server.log
        assert "curl http://127.0.0.1" in server.out


def test_draining_refuses_new_requests_and_ends_late_ones():
    with process("--host", "127.0.0.1", "--port", "0", "--shutdown-timeout", "1") as server:
        port = _port(server.wait_ready())
        with contextlib.ExitStack() as stack:
            streams = []
            for _ in range(16):  # enough work for longer than the timeout
                body = {"prompt": "a", "ignore_eos": True, "stream": True, "n": 8, "max_tokens": 400}
                connection = _post(port, body)
                stack.callback(connection.close)
                streams.append(connection.getresponse())
            server.popen.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 5
            while _status(port, "/health") != 503:
                assert time.monotonic() < deadline
            reply = _post(port, {"prompt": "a"}).getresponse()
            assert reply.status == 503
            assert json.loads(reply.read())["error"]["type"] == "ServiceUnavailableError"
            ends = [s.read() for s in streams]
        assert server.end() == 0
        assert "Traceback" not in server.log
        assert all(e.endswith(b"data: [DONE]\n\n") for e in ends)
        assert any(b'"code":503' in e for e in ends)


def test_a_second_signal_ends_at_once():
    with process("--host", "127.0.0.1", "--port", "0") as server:
        port = _port(server.wait_ready())
        streams = [
            _post(port, {"prompt": "a", "ignore_eos": True, "stream": True, "n": 8, "max_tokens": 400})
            for _ in range(32)
        ]
        for s in streams:
            s.getresponse()
        server.popen.send_signal(signal.SIGINT)
        time.sleep(0.2)
        if server.popen.poll() is None:
            server.popen.send_signal(signal.SIGINT)
        assert server.end(5) in (128 + signal.SIGINT, 0)


def test_a_signal_while_loading_ends_at_once():
    with process("--host", "127.0.0.1", "--port", "0") as server:
        assert "loading" in server.popen.stderr.readline()
        server.popen.send_signal(signal.SIGTERM)
        assert server.end() == 0
        assert "Traceback" not in server.log


def test_requests_that_are_no_http_are_refused_and_leave_no_trace_in_the_log():
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    malformed = [
        b"GARBAGE\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        head + b"Content-Length: -5\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n\r\n",
        head + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nxxxxx",
    ]
    with process("--host", "127.0.0.1", "--port", "0") as server:
        port = _port(server.wait_ready())
        for request in malformed:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(request)
                assert client.recv(100).split()[1] == b"400", request[:60]
        assert _status(port, "/health") == 200
        server.popen.send_signal(signal.SIGTERM)
        assert server.end() == 0
        assert "Traceback" not in server.log
        assert "ERROR" not in server.log


def test_unix_socket(tmp_path):
    path = str(tmp_path / "rvllm.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    with process("--uds", path) as server:
        assert server.wait_ready() == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        second = subprocess.run(
            [sys.executable, "-m", "rvllm.serve", "--uds", path], capture_output=True, text=True, check=False
        )
        assert second.returncode == 2
        assert path in second.stderr
        server.popen.send_signal(signal.SIGTERM)
        assert server.end() == 0
    assert not os.path.exists(path)


def test_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        with process("--host", "::1", "--port", "0") as server:
            url = server.wait_ready()
            assert url.startswith("http://[::1]:")
            connection = http.client.HTTPConnection("::1", _port(url), timeout=10)
            connection.request("GET", "/health")
            assert connection.getresponse().status == 200


def _fails(*argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rvllm", "serve", *argv], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("rvllm: error: ")]
    assert len(errors) == 1
    return errors[0]


def test_a_port_in_use_is_said_before_loading():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = _fails("--host", "127.0.0.1", "--port", str(port))
    assert f"127.0.0.1 port {port}: address already in use; choose another with --port" in error


def test_hosts_that_do_not_exist():
    assert "--host no.such.host.invalid" in _fails("--host", "no.such.host.invalid")
    assert "203.0.113.7" in _fails("--host", "203.0.113.7", "--port", "0")


@pytest.mark.parametrize("broken", ["missing", "empty", "config", "architecture"])
def test_models_that_cannot_be_served_are_one_sentence(tmp_path, broken):
    model = tmp_path / "model"
    if broken != "missing":
        model.mkdir()
    if broken == "config":
        (model / "config.json").write_text("{")
    if broken == "architecture":
        config = json.loads((DEMO_MODEL / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchForCausalLM"]}))
        (model / "tokenizer.json").write_bytes((DEMO_MODEL / "tokenizer.json").read_bytes())
    assert str(model) in _fails(str(model), "--host", "127.0.0.1", "--port", "0") or broken == "architecture"


def test_health_says_503_while_loading():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with process("--host", "127.0.0.1", "--port", str(port)) as server:
        seen = set()
        deadline = time.monotonic() + 30
        while 200 not in seen:
            assert time.monotonic() < deadline
            with contextlib.suppress(ConnectionRefusedError):
                seen.add(_status(port, "/health"))
        # Loading the demo may be over before the first try; nothing but these may be seen.
        assert seen <= {200, 503}
        server.wait_ready()


def test_start_up_takes_little_cpu_time():
    """CPU time rather than a clock, which a busy machine stretches."""
    import psutil

    used = []
    for _ in range(3):
        with process("--host", "127.0.0.1", "--port", "0") as server:
            server.wait_ready()
            times = psutil.Process(server.popen.pid).cpu_times()
            used.append(times.user + times.system)
    assert min(used) < 1.0
