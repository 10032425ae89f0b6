"""HTTP/1.1 on a connection, with what uvicorn leaves open: limits of headers, time limits, and errors in one form.

A connection waits (idle-seconds), receives headers (header-bytes, header-seconds), has requests under way (their bodies
are timed by the guard), and waits again. A client that takes nothing of its answer is cut off after send-seconds. Where
there are too many connections, the one that waits the longest gives way; where all have requests under way, the new one
is refused.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from spicula.serving import problems
from spicula.serving.problems import Problem, beyond
from spicula.serving.service import Service

#: After an answer that came before the end of the body, so long is the rest thrown away: to close at once would make
#: the system throw away the answer as well, on its way to a client that is still sending (RFC 9112, section 9.6).
LINGER_SECONDS = 5
#: Connections that are refused linger too; beyond so many they are closed at once.
_LINGERING = 100

_requests = logging.getLogger("spicula.serving.requests")


class Protocol(HttpToolsProtocol):
    """One connection.

    Args:
        service: its limits count.
        uvicorn: what the base class takes.
    """

    def __init__(self, service: Service, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._service, self._limits = service, service.limits
        self._timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._waits_since: float | None = None
        self._under_way = 0
        self._cycles: deque[RequestResponseCycle] = deque()
        self._head_bytes = 0
        self._is_in_head = self._is_ending = False
        self._later: Problem | None = None
        self._refusal: Problem | None = None

    # the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; where there are too many connections, make room."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) <= self._limits["connections"]:
            return
        waiting = [one for one in self.connections if isinstance(one, Protocol) and one._waits_since is not None]
        if longest := min(
            (one for one in waiting if one is not self), key=lambda one: one._waits_since or 0, default=None
        ):
            longest._abort()
            self.connections.discard(longest)
            return
        self.connections.discard(self)
        self._refuse(beyond("connections", self._limits["connections"], "more than {value} connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self._stop()
        self._is_ending = True
        self._tell_gone()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for a client that has not taken what was sent."""
        super().pause_writing()
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self._limits["send-seconds"], self._abort)

    def resume_writing(self) -> None:
        """Go on: it takes its answer."""
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
        super().resume_writing()

    # what comes

    def data_received(self, data: bytes) -> None:
        """Read what came; headers no further than their limit."""
        if self._is_ending:
            return
        if self._waits_since is not None and not self._is_in_head and self._head_bytes == 0:
            self._start(self._limits["header-seconds"], self._abort)
        most = self._limits["header-bytes"]
        while data and not self._is_ending:
            if not self._is_in_head and self._waits_since is None:
                super().data_received(data)
                return
            room = most - self._head_bytes
            piece, data = (data[:room], data[room:]) if len(data) > room else (data, b"")
            self._head_bytes += len(piece)
            super().data_received(piece)
            if self._head_bytes >= most and (self._is_in_head or self._waits_since is not None):
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._is_in_head = True
        if self._under_way:  # while another is answered: it counts from here
            self._head_bytes = 0
            self._start(self._limits["header-seconds"], self._abort)
        self._counted = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._stop()
        self._is_in_head = False
        self._waits_since = None
        self._head_bytes = 0
        super().on_headers_complete()
        self._cycles.append(self.cycle)
        self._under_way += 1

    def on_message_complete(self) -> None:
        """End the body; where it was answered before, the next request may come."""
        super().on_message_complete()
        if self._under_way == 0 and not self._is_ending:
            self._wait()

    def on_response_complete(self) -> None:
        """End a request."""
        self._under_way -= 1
        self._cycles.popleft()
        super().on_response_complete()
        self._unset_keepalive_if_required()
        if self._under_way or self._is_ending or self.transport.is_closing():
            return
        if self._later is not None:
            self._refuse(self._later)
        elif self.cycle.more_body:
            self._start(LINGER_SECONDS, self._abort)
        elif not self._is_in_head:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(self._refusal or Problem(400, "http", "this is no request of HTTP/1.1"))

    def _unsupported_upgrade_warning(self) -> None:
        self.cycle.keep_alive = False  # what follows would be of the other protocol

    # what is done about it

    def _count(self, size: int) -> None:
        self._counted += size
        if self._counted > self._limits["header-bytes"]:
            self._refusal = self._too_large()
            raise ValueError("too large")  # ends the parser, which answers with send_400_response

    def _too_large(self) -> Problem:
        return beyond("header-bytes", self._limits["header-bytes"], "the headers have more than {value} bytes")

    def _wait(self) -> None:
        self._waits_since = self.loop.time()
        self._head_bytes = 0
        self._start(self._limits["idle-seconds"], self._abort)

    def _start(self, seconds: float, function: Callable[[], None]) -> None:
        self._stop()
        self._timer = self.loop.call_later(seconds, function)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell_gone(self) -> None:
        """Tell all requests under way that the client is gone; uvicorn tells the last of them alone."""
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()

    def _abort(self) -> None:
        self._is_ending = True
        self._tell_gone()
        if self.transport is not None:
            self.transport.abort()

    def _refuse(self, problem: Problem) -> None:
        """Answer a problem that no route sees, and end the connection."""
        if self._is_ending:
            return
        cycle = self.cycle
        if self._under_way == 1 and not cycle.response_started and cycle.more_body:
            cycle.disconnected = True  # its body is broken: the route hears that the client has left
            cycle.message_event.set()
        elif self._under_way:
            self._later = problem  # behind the answers that are under way
            self._is_in_head = False
            self._stop()
            self.flow.pause_reading()
            return
        request = secrets.token_hex(8)
        self._service.metrics.count("requests", route="none", method="other", status=str(problem.status))
        self._service.metrics.know("code", problem.code)
        self._service.metrics.count("problems", code=problem.code)
        _requests.info("- none %d - nobody %s %s", problem.status, request, problem.code)
        answer = problems.response(problem, request)
        answer.headers["connection"] = "close"
        answer.headers["cache-control"] = "no-store"
        answer.headers["x-content-type-options"] = "nosniff"
        answer.headers["x-request-id"] = request
        lines = [f"HTTP/1.1 {problem.status} {problem.as_json('')['title']}".encode()]
        lines += [name + b": " + value for name, value in answer.raw_headers]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + bytes(answer.body))
        self._end()

    def _end(self) -> None:
        """Let the answer reach its reader: throw away what still comes, for a while."""
        self._is_ending = True
        self._waits_since = None
        ending = sum(1 for one in self.connections if isinstance(one, Protocol) and one._is_ending)
        if ending > _LINGERING:
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._start(LINGER_SECONDS, self._abort)
