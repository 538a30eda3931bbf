"""aiohttp middlewares: errors in the API's shape, the API key, and browsers' pages of other origins."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from rvllm.serve.errors import ApiError, as_api_error
from rvllm.serve.service import SERVICE

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN_PATHS = frozenset(("/health", "/ping", "/version", "/metrics"))


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer exceptions with the error object."""
    try:
        return await handler(request)
    except Exception as e:
        if isinstance(e, web.HTTPNotFound):
            e = ApiError(404, f"this server has no endpoint {request.method} {request.path}")
        elif isinstance(e, web.HTTPMethodNotAllowed):
            allowed = ", ".join(sorted(e.allowed_methods))
            message = f"{request.path} does not take {e.method}, only {allowed}"
            e = ApiError(405, message, headers={"Allow": allowed})
        metrics = request.app[SERVICE].metrics
        return as_api_error(e, 1 if metrics is None else metrics.retry_after_s()).response()


def api_key(keys: list[str]) -> Middleware:
    """Return a middleware that asks for one of `keys` as bearer token everywhere but on OPEN_PATHS.

    Digests of equal length are compared, in constant time, with every key.
    """
    digests = [_digest(key) for key in keys]

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_PATHS:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            given = _digest(token.strip())
            matches = sum(hmac.compare_digest(given, digest) for digest in digests)
            if scheme.lower() != "bearer" or not matches:
                raise ApiError(401, "the API key is missing or wrong", headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    return check


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def allow_origins(app: web.Application, origins: list[str]) -> None:
    """Let pages of these origins ("*": of any) use the server from a browser (CORS, without cookies)."""

    async def name_origin(request: web.Request, response: web.StreamResponse) -> None:
        origin = request.headers.get("Origin")
        if origin is None:
            return
        if "*" in origins:
            response.headers["Access-Control-Allow-Origin"] = "*"
        elif origin in origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Vary"] = "Origin"

    @web.middleware
    async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a browser that asks before it sends: without a key, which it may only send afterwards."""
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return await handler(request)
        headers = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Max-Age": "600"}
        if "Access-Control-Request-Headers" in request.headers:
            headers["Access-Control-Allow-Headers"] = request.headers["Access-Control-Request-Headers"]
        return web.Response(status=204, headers=headers)

    app.middlewares.insert(0, preflight)
    app.on_response_prepare.append(name_origin)
