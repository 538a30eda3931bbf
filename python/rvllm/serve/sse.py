"""Server-sent events, written straight to the transport: one write per connection and wake, no task and no queue."""

from __future__ import annotations

import asyncio

from aiohttp import HttpVersion11, web

DONE = b"data: [DONE]\n\n"


def frame(json: bytes) -> bytes:
    """Return the event that carries `json`."""
    return b"data: %b\n\n" % json


class SseStream:
    """The response of one streamed request.

    send() may be called as soon as the object exists: what comes before start() waits for it. It never blocks. When the
    client reads too slowly the connection is aborted, which aiohttp reports to the handler as a cancellation.
    """

    __slots__ = ("_backlog", "_chunked", "_done", "_max_unsent", "_request", "_transport", "closed", "response")

    def __init__(self, request: web.Request, headers: dict[str, str], max_unsent_bytes: int):
        self.response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
                **headers,
            }
        )
        self.closed = False
        self._request = request
        self._transport: asyncio.WriteTransport | None = None
        self._chunked = request.version >= HttpVersion11
        if self._chunked:
            self.response.enable_chunked_encoding()
        self._backlog: list[bytes] = []
        self._done = asyncio.get_running_loop().create_future()
        self._max_unsent = max_unsent_bytes

    async def start(self) -> None:
        """Send the headers, then whatever send() was given before."""
        writer = await self.response.prepare(self._request)
        assert writer is not None
        writer.send_headers()
        self._transport = self._request.transport
        backlog, self._backlog = self._backlog, []
        if backlog:
            self.send(b"".join(backlog))

    def send(self, payload: bytes) -> None:
        """Write whole events; a closed stream drops them."""
        transport = self._transport
        if transport is None:
            self._backlog.append(payload)
            return
        if self.closed or transport.is_closing():
            return
        transport.write(b"%x\r\n%b\r\n" % (len(payload), payload) if self._chunked else payload)
        if transport.get_write_buffer_size() > self._max_unsent:
            self.closed = True
            transport.abort()

    def finish(self) -> None:
        """Let wait() return: nothing more will be sent."""
        if not self._done.done():
            self._done.set_result(None)

    async def wait(self) -> None:
        """Return after finish(). Cancelled when the client has gone."""
        await self._done
