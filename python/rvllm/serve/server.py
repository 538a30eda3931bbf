"""The life of a server process: bind, load, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from rvllm.engine_config import EngineConfig
from rvllm.errors import ConfigError
from rvllm.progress import ProgressBar
from rvllm.serve.app import build_app
from rvllm.serve.options import ServeOptions
from rvllm.serve.service import Service
from rvllm.serve.statsline import log_stats

if TYPE_CHECKING:
    from rvllm.engine import Engine

log = logging.getLogger("rvllm.serve")

BACKLOG = 2048  # connections the kernel holds while the loop is busy
# Objects until the garbage collector looks at the young ones. With the usual 700 it looks at everything once in 400
# requests, which stops 256 streams for 10 ms.
GC_THRESHOLD = 10_000
FLUSH_S = 3.0  # for answers to reach their clients once the engine has stopped


def run(config: EngineConfig, options: ServeOptions, after_ready: Callable[[str], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code. `after_ready` is called with the server's URL."""
    logging.basicConfig(
        level=options.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(serve(config, options, after_ready))


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of uvloop, or of asyncio where that is not installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def serve(config: EngineConfig, options: ServeOptions, after_ready: Callable[[str], None] | None = None) -> int:
    """Serve until a signal. The socket listens from the start: /health says 503 until the model is loaded."""
    started = time.monotonic()
    service = Service(options)
    sock = bind(options)
    stop = _stop_on_signals()
    runner = app_runner(build_app(service))
    stats_task = None
    try:
        await runner.setup()
        await web.SockSite(runner, sock, backlog=BACKLOG).start()
        engine = await _first(_load(config), stop)
        if engine is None:
            log.info("stopped while loading")
            return 0
        engine.attach(asyncio.get_running_loop())
        service.ready(engine)
        log.info("resolved %s\n%s", engine.loaded.sizes.text(), engine.loaded.memory.text())
        gc.freeze()  # what starting made lives as long as the process: no need to look at it again
        gc.set_threshold(GC_THRESHOLD)
        gc.enable()
        url = address(options, sock)
        log.info("ready after %.2f s, listening on %s", time.monotonic() - started, url)
        if after_ready is not None:
            after_ready(url)
        if not options.disable_log_stats:
            stats_task = asyncio.create_task(log_stats(engine))
        await stop.wait()
        await _drain(service, engine)
        return 0
    finally:
        if stats_task is not None:
            stats_task.cancel()
        await runner.cleanup()
        if options.uds:
            with contextlib.suppress(OSError):
                os.unlink(options.uds)


class _Malformed(logging.Filter):
    """Keeps requests that are no HTTP out of the log: their clients have been told, and traces help nobody."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, (HttpProcessingError, web.RequestPayloadError))


_malformed = _Malformed()


def app_runner(app: web.Application) -> web.AppRunner:
    """Return aiohttp's runner with the settings of this server: a client that goes away cancels its handler."""
    logging.getLogger("aiohttp.server").addFilter(_malformed)
    return web.AppRunner(
        app, handler_cancellation=True, access_log=None, shutdown_timeout=FLUSH_S, keepalive_timeout=75
    )


async def _drain(service: Service, engine: Engine) -> None:
    service.draining = True
    timeout = service.options.shutdown_timeout
    log.info("draining: %d requests in flight, at most %g s", service.n_in_flight, timeout)
    await engine.shutdown(timeout)
    log.info("stopped")


# ---- loading -------------------------------------------------------------------------------------------


async def _load(config: EngineConfig) -> Engine:
    """Load the engine on a thread of its own, so that the event loop answers meanwhile."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Engine] = loop.create_future()

    def finish(engine: Engine | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        elif engine is not None:
            done.set_result(engine)

    def work() -> None:
        engine, error = None, None
        try:
            from rvllm.engine import Engine

            log.info("loading %s", config.model)
            with ProgressBar() as bar:
                engine = Engine.load(config, bar)
        except BaseException as e:
            error = e
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(finish, engine, error)

    # A daemon: a signal during loading ends the process without waiting for it.
    threading.Thread(target=work, name="rvllm-load", daemon=True).start()
    return await done


async def _first(loading, stop: asyncio.Event):
    """Return what `loading` gives, or None when `stop` is set before."""
    load_task = asyncio.create_task(loading)
    stop_task = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((load_task, stop_task), return_when=asyncio.FIRST_COMPLETED)
        return load_task.result() if load_task.done() else None
    finally:
        load_task.cancel()
        stop_task.cancel()


def _stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


# ---- sockets -------------------------------------------------------------------------------------------


def bind(options: ServeOptions) -> socket.socket:
    """Return a bound socket, or raise ConfigError with a sentence."""
    if options.uds:
        return _bind_unix(options.uds)
    where = f"{options.host} port {options.port}"
    try:
        infos = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as e:
        raise ConfigError(f"--host {options.host}: {getattr(e, 'strerror', None) or e}") from None
    family, kind, proto, _, where_to = infos[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where_to)
    except OSError as e:
        sock.close()
        reason = (e.strerror or str(e)).lower()
        advice = "; choose another with --port" if e.errno == errno.EADDRINUSE else ""
        raise ConfigError(f"cannot listen on {where}: {reason}{advice}") from None
    sock.setblocking(False)
    return sock


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
    except OSError as e:
        sock.close()
        raise ConfigError(f"cannot listen on --uds {path}: {(e.strerror or str(e)).lower()}") from None
    sock.setblocking(False)
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on; anything else at `path` makes bind() fail."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def address(options: ServeOptions, sock: socket.socket) -> str:
    """Return the URL of a bound socket."""
    if options.uds:
        return f"unix:{options.uds}"
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
