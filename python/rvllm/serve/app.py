"""The aiohttp application: routes and middlewares around one Service."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Middleware

from rvllm.serve import health, middleware, models, tokenize
from rvllm.serve.chat import chat_completions
from rvllm.serve.completions import completions
from rvllm.serve.middleware import Handler
from rvllm.serve.service import SERVICE, Service


def build_app(service: Service) -> web.Application:
    """Return the application that serves `service`."""
    middlewares: list[Middleware] = [middleware.errors]
    if service.options.api_key:
        middlewares.append(middleware.api_key(service.options.api_key))
    app = web.Application(middlewares=middlewares, client_max_size=service.options.max_body_bytes)
    app[SERVICE] = service
    if service.options.allowed_origins:
        middleware.allow_origins(app, service.options.allowed_origins)
    router = app.router
    router.add_post("/v1/completions", _in_flight(completions))
    router.add_post("/v1/chat/completions", _in_flight(chat_completions))
    router.add_get("/v1/models", models.list_models)
    router.add_get("/v1/models/{id:.+}", models.get_model)
    router.add_post("/tokenize", tokenize.tokenize)
    router.add_post("/detokenize", tokenize.detokenize)
    router.add_get("/health", health.health)
    router.add_get("/ping", health.health)
    router.add_post("/ping", health.health)
    router.add_get("/version", health.version)
    router.add_get("/load", health.load)
    router.add_get("/metrics", health.metrics)
    return app


def _in_flight(handler: Handler) -> Handler:
    async def counted(request: web.Request) -> web.StreamResponse:
        service = request.app[SERVICE]
        service.n_in_flight += 1
        try:
            return await handler(request)
        finally:
            service.n_in_flight -= 1

    return counted
