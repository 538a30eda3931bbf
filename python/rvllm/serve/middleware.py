"""aiohttp middlewares: errors in the API's shape, and the API key."""

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
