"""The process of a service: its event loop, its signals, its log, and its end."""

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn

from spicula.errors import SpiculaError
from spicula.serving import problems
from spicula.serving.app import build
from spicula.serving.lines import Lines
from spicula.serving.protocol import Protocol
from spicula.serving.service import Service

#: Connections that the system keeps until they are taken. Where there is no room, it resets those that come.
BACKLOG = 2048
#: After SIGTERM the address is kept at least so long: clients of open connections hear in an answer that it closes.
_GRACE_SECONDS = 0.5
#: Between the end of listening and the end of connections: what is on its way on them is still told.
_LAST_SECONDS = 0.2
#: For what is left when every accepted request is answered: connections that do not close.
_CLOSING_SECONDS = 3

_log = logging.getLogger("spicula.serving")


class Process(uvicorn.Server):
    """Runs a service until a signal ends it.

    Args:
        service: what is served.
        listening: a socket that listens.
        tls: None for plain HTTP.
    """

    def __init__(self, service: Service, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._service, self._listening, self._tls = service, listening, tls
        self._is_told = False
        set_up_log(service.settings.log)
        config = uvicorn.Config(
            build(service),
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(service.settings.proxies),
            forwarded_allow_ips=list(service.settings.proxies),
            timeout_graceful_shutdown=_CLOSING_SECONDS,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and take connections."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_tell_exception)
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SpiculaError("the service cannot start; the lines above say why")

        def connection() -> Protocol:
            return Protocol(
                self._service,
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                _loop=loop,
            )

        seconds = self._service.limits["header-seconds"] if self._tls else None
        self.servers = [
            await loop.create_server(
                connection, sock=self._listening, backlog=BACKLOG, ssl=self._tls, ssl_handshake_timeout=seconds
            )
        ]
        self._service.metrics.watch("connections", lambda: len(self.server_state.connections))
        self.started = True
        scheme = "https" if self._tls else "http"
        host, port = self._listening.getsockname()[:2]
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        _say(f"serving on {scheme}://{place} (models are loading; research use only, not a medical device)")

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether to go on."""
        if self._service.is_ready and not self._is_told:
            self._is_told = True
            gc.collect()
            gc.freeze()  # what is loaded stays: to look at all of it again holds every request up for 0.1 s
            exams = ["exams"] if "exams" in self._service.parts else []
            _say(f"ready: {', '.join([*self._service.models, *exams]) or 'no models'}")
        self.should_exit = self.should_exit or self._service.failure is not None
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, refuse what is new, close everything."""
        service = self._service
        service.is_draining, service.is_ready = True, False
        loop = asyncio.get_running_loop()
        begun = loop.time()
        most = 0 if service.failure else service.limits["drain-seconds"]
        while loop.time() < begun + min(_GRACE_SECONDS, most) or service.under_way:
            if loop.time() >= begun + most:
                _log.error("%d requests were not answered within drain-seconds", service.under_way)
                for task in list(self.server_state.tasks):
                    task.cancel()
                break
            await asyncio.sleep(0.02)
        # What has connected is taken before the end of listening resets it; what connects now is left to try again.
        self._listening.listen(0)
        await asyncio.sleep(_LAST_SECONDS)
        for server in self.servers:
            server.close()
        await asyncio.sleep(_LAST_SECONDS)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals as long as the service runs; they do not end the process otherwise."""
        handlers: dict[int, Any] = {signal.SIGTERM: self.handle_exit, signal.SIGINT: self.handle_exit}
        if self._service.settings.tokens is not None:
            handlers[signal.SIGHUP] = self._read_tokens
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End after the requests under way; at a second Ctrl-C at once."""
        if self.should_exit and sig == signal.SIGINT:
            _say("spicula: ended at once; requests under way were not answered")
            if isinstance(sys.stderr, Lines):
                sys.stderr.finish()
            os._exit(130)
        self.should_exit = True

    def _read_tokens(self, sig: int, frame: FrameType | None) -> None:
        try:
            self._service.tokens.read()
        except SpiculaError as error:
            _log.error("tokens stay as they were: %s", error)
        else:
            _log.warning("tokens were read again")


class _Formatter(logging.Formatter):
    """A line a record. Of exceptions their types and places alone: messages of libraries quote what they were given."""

    def formatException(self, ei: Any) -> str:
        return problems.traceback_of(ei[1]) if ei[1] is not None else ""


def set_up_log(what: str) -> None:
    """Send the lines of the service to stderr, and those of libraries nowhere: they quote headers and paths.

    Args:
        what: "requests": a line for each request; "errors": none.
    """
    warnings.simplefilter("ignore")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    for name, level in (("spicula", logging.INFO), ("uvicorn.error", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
    logging.getLogger("spicula.serving.requests").setLevel(logging.INFO if what == "requests" else logging.WARNING)


def _tell_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody caught, without the values that the loop would quote."""
    error = context.get("exception")
    if not isinstance(error, ConnectionError | TimeoutError | ssl.SSLError):
        _log.error("unexpected: %s", problems.traceback_of(error) if error is not None else "no exception")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
