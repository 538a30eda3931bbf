"""What all handlers share: the options, the engine once it is loaded, and how a request enters."""

from __future__ import annotations

import hashlib
import time
import uuid
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web
from msgspec import Struct

import rvllm
from rvllm.serve import schema
from rvllm.serve.errors import ApiError
from rvllm.serve.metrics import Metrics
from rvllm.serve.options import ServeOptions

if TYPE_CHECKING:
    from rvllm.engine import Engine

# A step takes milliseconds on a GPU and at most seconds on a CPU; no heartbeat for this long means it hangs.
STUCK_AFTER_S = 60.0

T = TypeVar("T", bound=Struct)


class Service:
    """The state of one server. `engine` is None until the model is loaded."""

    def __init__(self, options: ServeOptions):
        self.options = options
        self.engine: Engine | None = None
        self.metrics: Metrics | None = None
        self.model_names: list[str] = options.served_model_name
        self.fingerprint = ""
        self.created = int(time.time())
        self.draining = False
        self.n_in_flight = 0  # generation requests between arrival and answer

    def ready(self, engine: Engine) -> None:
        """Start answering with `engine`."""
        self.model_names = self.options.served_model_name or [engine.model_name]
        config = repr(engine.config)
        self.fingerprint = f"rvllm-{rvllm.__version__}-{hashlib.blake2b(config.encode(), digest_size=4).hexdigest()}"
        self.metrics = Metrics(engine, self.model_names[0])
        self.engine = engine

    def state(self) -> str:
        """Return "running", or why /health answers 503: starting, draining, stuck or dead."""
        if self.engine is None:
            return "starting"
        if self.draining:
            return "draining"
        stats = self.engine.stats()
        if stats.state == "running" and stats.heartbeat_age_s > STUCK_AFTER_S:
            return "stuck"
        return stats.state

    def loaded(self) -> Engine:
        """Return the engine, or raise 503 while there is none."""
        if self.engine is None:
            raise ApiError(503, "the model is still loading", headers={"Retry-After": "1"})
        return self.engine

    def admitting(self) -> Engine:
        """Return the engine if it takes new requests, or raise 503."""
        engine = self.loaded()
        if self.draining:
            raise ApiError(503, "the server is shutting down", headers={"Retry-After": "10"})
        return engine

    async def read(self, request: web.Request, kind: type[T]) -> tuple[T, dict[str, str]]:
        """Read, decode and check a body; return it and the headers that its answer carries."""
        body = await self.read_body(request)
        decoded, ignored = schema.decode(body, kind)
        if ignored and self.options.strict_params:
            raise ApiError(
                400, f"unknown field: {', '.join(ignored)} (the server runs with --strict-params)", ignored[0]
            )
        self.check_model(getattr(decoded, "model", None))
        headers = schema.ignored_header(ignored)
        if "X-Request-Id" in request.headers:
            headers["X-Request-Id"] = request.headers["X-Request-Id"]
        return decoded, headers

    async def read_body(self, request: web.Request) -> bytes:
        """Read a body within the limit, or raise 413."""
        limit = self.options.max_body_bytes
        if request.content_length is not None and request.content_length > limit:
            raise ApiError(413, f"the body has {request.content_length} bytes; the server accepts {limit}")
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise ApiError(413, f"the body is larger than the {limit} bytes that the server accepts") from None
        except web.RequestPayloadError:
            raise ApiError(400, "the body cannot be read: its encoding or its end is broken") from None

    def check_model(self, name: str | None) -> None:
        """Raise 404 unless `name` is served or left out."""
        if name is not None and name not in self.model_names:
            served = ", ".join(self.model_names)
            raise ApiError(404, f"the model {name!r} does not exist; this server has {served}", "model")


SERVICE = web.AppKey("service", Service)


def request_id(request: web.Request, given: str | None) -> str:
    """Return the id of an answer without its prefix: the field, the header X-Request-Id, or a fresh one."""
    return given or request.headers.get("X-Request-Id") or uuid.uuid4().hex
