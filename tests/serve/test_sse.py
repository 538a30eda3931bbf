"""Event streams: framing, and what happens to readers that are late, slow or gone."""

import asyncio
import json
import socket

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from rvllm.serve.responses import ChatChunkChoice, CompletionChoice, Delta, encode
from rvllm.serve.sse import DONE, SseStream, frame


async def _serve(handler):
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, runner.addresses[0][1]


async def _get(port: int, version: str = "1.1") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET / HTTP/{version}\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
    data = await reader.read()
    writer.close()
    return data


def _unchunk(body: bytes) -> list[bytes]:
    chunks = []
    while True:
        size, _, body = body.partition(b"\r\n")
        n = int(size, 16)
        chunk, body = body[:n], body[n:]
        assert body.startswith(b"\r\n")
        body = body[2:]
        if n == 0:
            assert not body
            return chunks
        chunks.append(chunk)


def _run(version: str) -> bytes:
    async def handler(request):
        out = SseStream(request, {"x-extra": "1"}, 1 << 20)
        out.send(frame(b'{"early": 1}'))
        await out.start()
        out.send(frame(b'{"late": 1}') + frame(b'{"late": 2}'))
        asyncio.get_running_loop().call_later(0.02, lambda: (out.send(DONE), out.finish()))
        await out.wait()
        return out.response

    async def main():
        runner, port = await _serve(handler)
        try:
            return await _get(port, version)
        finally:
            await runner.cleanup()

    return asyncio.run(main())


def test_each_send_is_one_chunk_and_what_came_before_the_headers_is_not_lost():
    head, _, body = _run("1.1").partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert b"x-extra: 1" in head
    early, late, done = _unchunk(body)
    assert early == b'data: {"early": 1}\n\n'
    assert late == b'data: {"late": 1}\n\ndata: {"late": 2}\n\n'
    assert done == b"data: [DONE]\n\n"


def test_http_1_0_gets_plain_bytes():
    head, _, body = _run("1.0").partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b'data: {"early": 1}\n\ndata: {"late": 1}\n\ndata: {"late": 2}\n\ndata: [DONE]\n\n'


def test_a_reader_that_does_not_read_is_cut_off_at_the_bound():
    bound = 64 << 10
    cancelled = asyncio.Event()
    written = 0

    async def handler(request):
        nonlocal written
        out = SseStream(request, {}, bound)
        await out.start()
        try:
            while True:
                if not out.closed:
                    out.send(frame(b"x" * 1000))
                    written += 1000
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def main():
        runner, port = await _serve(handler)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            sock.connect(("127.0.0.1", port))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            await asyncio.wait_for(cancelled.wait(), 20)
        finally:
            sock.close()
            await runner.cleanup()

    asyncio.run(main())
    assert written > bound


@given(st.text(), st.sampled_from([CompletionChoice, ChatChunkChoice]))
def test_bytes_around_a_text_equal_encoding_the_whole(text, kind):
    """The fast path of Stream: an event is split once at a mark, later texts go between the halves."""

    def render(piece: str) -> bytes:
        return frame(encode(kind(3, piece) if kind is CompletionChoice else kind(3, Delta(content=piece))))

    mark = "\x00text\x00"
    head, found, tail = render(mark).rpartition(encode(mark))
    assert found
    assert head + encode(text) + tail == render(text)


@pytest.mark.parametrize("text", ["\n", "\r\n\r\n", "data: [DONE]\n\n", "\u2028", "\x00", '"\\'])
def test_a_text_cannot_end_its_event(text):
    event = frame(encode({"text": text}))
    assert event.count(b"\n") == 2
    assert json.loads(event.removeprefix(b"data: "))["text"] == text
