"""Errors as the API shows them: {"error": {"message", "type", "param", "code"}}, with code == HTTP status."""

from __future__ import annotations

import logging

import msgspec
from aiohttp import web

from rvllm.errors import InvalidRequestError, QueueFullError

log = logging.getLogger("rvllm.serve")

JSON = "application/json"
_encode = msgspec.json.Encoder().encode
_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    413: "RequestTooLargeError",
    429: "RateLimitError",
    500: "InternalServerError",
    501: "NotImplementedError",
    503: "ServiceUnavailableError",
    504: "TimeoutError",
}
# How a choice may end that is no answer: (status, sentence).
FAILED = {
    "abort": (503, "the server is shutting down and ended this request"),
    "error": (500, "the model could not compute this request: its logits were not numbers, or its step failed"),
    "deadline": (504, "the request did not finish before its deadline"),
}


class ApiError(Exception):
    """An answer other than success. `param` names the offending field where there is one."""

    def __init__(self, status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.headers = headers

    def body(self) -> bytes:
        """Return the JSON object of the error."""
        kind = _TYPES.get(self.status, "APIError")
        return _encode({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.status}})

    def response(self) -> web.Response:
        """Return the HTTP response of the error."""
        return web.Response(status=self.status, body=self.body(), content_type=JSON, headers=self.headers)


def as_api_error(exc: Exception, retry_after_s: int = 1) -> ApiError:
    """Translate any exception of a handler; one that is not expected is logged and becomes a 500."""
    if isinstance(exc, ApiError):
        return exc
    if isinstance(exc, InvalidRequestError):
        return ApiError(400, str(exc), exc.param)
    if isinstance(exc, QueueFullError):
        return ApiError(429, str(exc), headers={"Retry-After": str(retry_after_s)})
    if isinstance(exc, web.HTTPRequestEntityTooLarge):
        return ApiError(413, "the body is larger than the server accepts")
    if isinstance(exc, web.HTTPException):
        return ApiError(exc.status, exc.reason)
    log.error("request failed", exc_info=exc)
    return ApiError(500, "the server failed on this request; its log has the details")
