"""GET /health, /ping, /version, /load and /metrics: how the server is doing."""

from __future__ import annotations

from aiohttp import web

import rvllm
from rvllm.serve.errors import JSON, ApiError
from rvllm.serve.responses import encode
from rvllm.serve.service import SERVICE


async def health(request: web.Request) -> web.Response:
    """Handle GET /health: 200 while steps progress or the engine is idle, else 503 with the reason."""
    state = request.app[SERVICE].state()
    if state != "running":
        raise ApiError(503, f"the engine is {state}")
    return web.Response(body=encode({"status": state}), content_type=JSON)


async def version(request: web.Request) -> web.Response:
    """Handle GET /version."""
    return web.Response(body=encode({"version": rvllm.__version__}), content_type=JSON)


async def load(request: web.Request) -> web.Response:
    """Handle GET /load: generation requests between arrival and answer."""
    return web.Response(body=encode({"server_load": request.app[SERVICE].n_in_flight}), content_type=JSON)


async def metrics(request: web.Request) -> web.Response:
    """Handle GET /metrics in the Prometheus text format."""
    service = request.app[SERVICE]
    service.loaded()
    assert service.metrics is not None
    headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    return web.Response(body=service.metrics.render(), headers=headers)
