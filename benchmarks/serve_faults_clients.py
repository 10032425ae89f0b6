"""Clients on loopback in one event loop: healthy ones at a rate, as many as can be, slow ones, and ones that lie."""

import asyncio
import contextlib
import itertools
import random
import socket
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

#: An answer that has not come within so long is missing.
ANSWER_SECONDS = 90.0
#: Hostile requests may leave the service waiting for the rest of them: nobody waits longer for its answer.
_HOSTILE_SECONDS = 10.0
#: Status of requests whose connection ended without an answer.
NO_ANSWER = 0


def post(path: str, port: int, body: bytes, headers: dict[str, str]) -> bytes:
    """Return a request with a body."""
    return _head("POST", path, port, {**headers, "Content-Length": str(len(body))}) + body


def get(path: str, port: int, headers: dict[str, str]) -> bytes:
    """Return a request without one."""
    return _head("GET", path, port, headers)


def _head(method: str, path: str, port: int, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *(f"{a}: {b}" for a, b in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass
class Seen:
    """What clients saw.

    Attributes:
        statuses: answers by status; `NO_ANSWER` where there was none.
        seconds: of the answers with status 200.
        refused_seconds: of those with 429 and 503.
        faults: what no service should answer, each with how often: 5xx but 503 with Retry-After, errors of another
            form than problem+json, requests without an answer.
        errors: bodies of errors, to be searched.
        slowest: seconds of the slowest answer to requests of each name.
        silent: names of hostile requests that were not answered, and how they ended.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    refused_seconds: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    errors: set[bytes] = field(default_factory=set)
    slowest: dict[str, float] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, status: int, head: bytes, body: bytes, seconds: float) -> None:
        """Count an answer to a request of a name."""
        self.statuses[status] += 1
        self.slowest[name] = max(seconds, self.slowest.get(name, 0.0))
        if status == 200:
            self.seconds.append(seconds)
            return
        if status in (429, 503):
            self.refused_seconds.append(seconds)
        if status >= 500 and (status != 503 or b"\r\nretry-after:" not in head.lower()):
            self.faults[f"{name}: {status}"] += 1
        if status >= 400:
            kinds = (b"application/problem+json", b"application/dicom+json")  # the second of STOW-RS, by the standard
            if not any(kind in head.lower() for kind in kinds):
                self.faults[f"{name}: {status} without problem+json"] += 1
            if len(self.errors) < 100_000:
                self.errors.add(head + body)

    def summary(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "answered p50, p95 s": quantiles(self.seconds),
            "refused p50, p95 s": quantiles(self.refused_seconds),
            "faults": dict(self.faults),
        }


def quantiles(values: Sequence[float]) -> list[float] | None:
    """Return the median and the 95th percentile; None of nothing."""
    if len(values) < 2:
        return None
    return [round(statistics.median(values), 4), round(statistics.quantiles(values, n=20, method="inclusive")[-1], 4)]


class Connection:
    """One connection, on which requests follow each other.

    Its socket is asked directly: what was answered before a connection broke can still be read, which the streams of
    asyncio do not give once a write has failed.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._stream, self._got = stream, b""
        self.is_used = self.is_over = False

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect.

        Raises:
            OSError: the service does not listen any more.
        """
        stream = socket.socket()
        stream.setblocking(False)
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(stream, ("127.0.0.1", port))
        except BaseException:
            stream.close()
            raise
        return cls(stream)

    async def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Send a request; return status, head and body of the answer.

        Raises:
            OSError, EOFError, ValueError: the connection ended before the end of the answer.
        """
        self.is_used = True
        with contextlib.suppress(ConnectionError):  # an answer may have come before
            await asyncio.get_running_loop().sock_sendall(self._stream, request)
        while b"\r\n\r\n" not in self._got:
            await self._receive()
        head, end, self._got = self._got.partition(b"\r\n\r\n")
        lower = head.lower()
        self.is_over = b"\r\nconnection: close" in lower
        status = int(head.split(b" ", 2)[1])
        if b"\r\ntransfer-encoding: chunked" in lower:
            return status, head + end, await self._chunks()
        found = lower.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        return status, head + end, b"" if status in (204, 304) else await self._exactly(int(found or 0))

    @property
    def has_part(self) -> bool:
        """Whether a part of an answer is there."""
        return bool(self._got)

    async def _receive(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._stream, 2**18)
        if not data:
            raise EOFError
        self._got += data

    async def _exactly(self, size: int) -> bytes:
        while len(self._got) < size:
            await self._receive()
        data, self._got = self._got[:size], self._got[size:]
        return data

    async def _chunks(self) -> bytes:
        pieces = []
        while True:
            while b"\r\n" not in self._got:
                await self._receive()
            size, _, self._got = self._got.partition(b"\r\n")
            pieces.append((await self._exactly(int(size, 16) + 2))[:-2])
            if not pieces[-1]:
                return b"".join(pieces)

    def close(self) -> None:
        """Close it at once."""
        self._stream.close()


class Clients:
    """Clients of good will, which keep connections and use them again.

    Args:
        port: of the service.
        requests: sent in turn, again and again.
    """

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._port, self._requests = port, itertools.cycle(requests)
        self._idle: list[Connection] = []
        self.seen = Seen()
        self.under_way = 0

    async def ask(self) -> int:
        """Send one request, and return the status of its answer."""
        request, begun = next(self._requests), time.perf_counter()
        self.under_way += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status, head, body = await self._on_any(request)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.seen.statuses[NO_ANSWER] += 1
            self.seen.faults[f"no answer: {type(error).__name__}"] += 1
            return NO_ANSWER
        finally:
            self.under_way -= 1
        self.seen.take("healthy", status, head, body, time.perf_counter() - begun)
        return status

    async def _on_any(self, request: bytes) -> tuple[int, bytes, bytes]:
        while True:
            connection = self._idle.pop() if self._idle else await Connection.open(self._port)
            was_used = connection.is_used
            try:
                answer = await connection.ask(request)
            except (OSError, EOFError):
                connection.close()
                if was_used and not connection.has_part:
                    continue  # it was closed while nobody used it, as any connection may be (RFC 9112, 9.3.1)
                raise
            if connection.is_over:
                connection.close()
            else:
                self._idle.append(connection)
            return answer

    def close(self) -> None:
        """Close all connections."""
        for one in self._idle:
            one.close()

    async def at_rate(self, rate: float, seconds: float, most: int = 900) -> int:
        """Send requests at a rate, whether or not answers have come, but no more than `most` at a time.

        Returns:
            Requests that were due and not sent, because so many were under way.
        """
        tasks: set[asyncio.Task[int]] = set()
        begun, left_out = time.perf_counter(), 0
        for number in itertools.count():
            due = begun + number / rate
            if due > begun + seconds:
                break
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            if len(tasks) >= most:
                left_out += 1
                await asyncio.sleep(0)
                continue
            task = asyncio.create_task(self.ask())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        return left_out

    async def as_quickly(self, clients: int, seconds: float) -> float:
        """Let clients ask one request after the other; return answers with status 200 a second."""
        before, begun = self.seen.statuses[200], time.perf_counter()

        async def one() -> None:
            while time.perf_counter() < begun + seconds:
                await self.ask()

        await asyncio.gather(*(one() for _ in range(clients)))
        return (self.seen.statuses[200] - before) / (time.perf_counter() - begun)


@contextlib.asynccontextmanager
async def beside(*works: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Let others work as long as the block lasts."""

    async def run(work: Callable[[], Awaitable[object]]) -> None:
        await work()

    tasks = [asyncio.create_task(run(work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


# clients that are slow


class Slow:
    """Connections that are held open: one says nothing, one half a header, one half a body, one takes no answer.

    Args:
        port: of the service.
        half_body: a request, of which the second half never comes.
        large: a request whose answer is large.
    """

    def __init__(self, port: int, half_body: bytes, large: bytes) -> None:
        self._port = port
        self._firsts = [b"", b"GET / HTTP/1.1\r\nHost: 127", half_body[: len(half_body) // 2], large * 20]
        self.opened = self.ended = 0

    async def hold(self, connections: int) -> None:
        """Keep so many, each opened again when the service ends it, until cancelled."""
        await asyncio.gather(*(self._one(self._firsts[number % 4]) for number in range(connections)))

    async def _one(self, first: bytes) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(2 * random.random())
            with socket.socket() as stream, contextlib.suppress(OSError):
                stream.setblocking(False)
                stream.setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVBUF, 4096
                )  # what it does not read stays with the service
                await loop.sock_connect(stream, ("127.0.0.1", self._port))
                self.opened += 1
                await loop.sock_sendall(stream, first)
                while not self._is_ended(stream):
                    await asyncio.sleep(1)
                self.ended += 1

    @staticmethod
    def _is_ended(stream: socket.socket) -> bool:
        """Whether the service has closed a connection, of which nothing is read."""
        try:
            return stream.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


# clients that lie


async def send_hostile(port: int, name: str, request: bytes, seen: Seen) -> None:
    """Send a request on a connection of its own, and note what is answered."""
    begun = time.perf_counter()
    try:
        connection = await Connection.open(port)
    except OSError:
        seen.faults[f"{name}: cannot connect"] += 1
        return
    try:
        async with asyncio.timeout(_HOSTILE_SECONDS):
            answer = await connection.ask(request)
        seen.take(name, *answer, time.perf_counter() - begun)
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        seen.statuses[NO_ANSWER] += 1
        seen.silent[name] = type(error).__name__
    finally:
        connection.close()
