"""A server with the demo model on a real socket, in this process, so that tests can look at the engine too."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from rvllm.engine import Engine
from rvllm.engine_config import EngineConfig
from rvllm.flags import DEMO_MODEL
from rvllm.serve.app import build_app
from rvllm.serve.options import ServeOptions
from rvllm.serve.server import app_runner, bind, new_event_loop
from rvllm.serve.service import Service

if TYPE_CHECKING:
    import openai

MODEL = "demo"


@dataclass
class Reply:
    """What came back over HTTP."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> dict[str, Any]:
        """Return the error object, after checking its shape."""
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == self.status
        assert error["message"]
        return error


class RunningServer:
    """A server and the ways tests talk to it."""

    def __init__(self, service: Service, port: int):
        self.service = service
        self.engine: Engine = service.engine
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def openai(self, **kwargs: Any) -> openai.OpenAI:
        import openai

        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, **kwargs)

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """Send one request; `body` is bytes, or encoded as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
        return self.request("POST", path, body, headers)

    def events(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the decoded events of a stream, after checking its framing."""
        reply = self.post(path, {**body, "stream": True})
        assert reply.status == 200, reply.body
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        assert reply.body.endswith(b"\n\n")
        frames = reply.body.split(b"\n\n")[:-1]
        assert all(f.startswith(b"data: ") for f in frames)
        assert frames.pop() == b"data: [DONE]"
        return [json.loads(f.removeprefix(b"data: ")) for f in frames]

    def open(self, path: str, body: dict[str, Any], receive_buffer: int | None = None) -> socket.socket:
        """Send a request on a socket of its own and leave reading and closing to the test."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect(("127.0.0.1", self.port))
        payload = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(payload)}\r\n\r\n"
        sock.sendall(head.encode() + payload)
        return sock

    def wait_for(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
        """Wait until `condition()` holds."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "did not happen in time"
            time.sleep(0.005)

    def wait_idle(self) -> None:
        """Wait until the engine runs nothing, and check that no block is left over."""
        self.wait_for(lambda: self.engine.n_unfinished == 0 and self.engine.stats().idle)
        stats = self.engine.stats()
        assert (stats.n_running, stats.n_waiting) == (0, 0)


@contextmanager
def running_server(config: EngineConfig | None = None, **options: Any) -> Iterator[RunningServer]:
    """Serve the demo model on a thread with its own event loop."""
    settings = ServeOptions(host="127.0.0.1", port=0, served_model_name=[MODEL], **options)
    service = Service(settings)
    engine = Engine.load(config or EngineConfig(model=str(DEMO_MODEL)))
    loop = new_event_loop()
    runner = app_runner(build_app(service))
    sock = bind(settings)

    async def start() -> None:
        engine.attach(loop)
        service.ready(engine)
        await runner.setup()
        await web.SockSite(runner, sock).start()

    async def stop() -> None:
        await engine.shutdown(0.0)
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield RunningServer(service, sock.getsockname()[1])
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
