"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from rvllm.serve.errors import JSON
from rvllm.serve.responses import encode
from rvllm.serve.service import SERVICE, Service


async def list_models(request: web.Request) -> web.Response:
    """Handle GET /v1/models."""
    service = request.app[SERVICE]
    service.loaded()
    body = {"object": "list", "data": [_card(service, name) for name in service.model_names]}
    return web.Response(body=encode(body), content_type=JSON)


async def get_model(request: web.Request) -> web.Response:
    """Handle GET /v1/models/{id}; names may hold slashes."""
    service = request.app[SERVICE]
    service.loaded()
    name = request.match_info["id"]
    service.check_model(name)
    return web.Response(body=encode(_card(service, name)), content_type=JSON)


def _card(service: Service, name: str) -> dict[str, Any]:
    engine = service.loaded()
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "rvllm",
        "root": engine.config.model,
        "parent": None,
        "max_model_len": engine.max_model_len,
        "permission": [],
    }
