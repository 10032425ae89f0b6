"""A closed loop of HTTP clients on loopback, in one thread: sockets that send bytes made before, and nothing else.

It shares the cores with the service that it measures, so it does as little as can be done: no HTTP library, no JSON, no
copy of what it sends. Each client sends its next request when it has its answer, and connects again where the service
closes connections.
"""

import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

_SEND_BYTES, _RECEIVE_BYTES = 2**22, 2**18
#: After the measured time, so long are answers that are under way waited for.
DRAIN_SECONDS = 60.0
OK = 200


@dataclass
class Load:
    """What clients saw.

    Attributes:
        seconds: that were measured.
        latencies: seconds from the first byte sent to the last received, of the answers that came in that time.
        failures: answers of another status than 200, by status; 0: the connection broke.
        answered: answers of status 200, before, in and after that time.
        probes: seconds of the probes' answers.
        cpu_seconds: that this thread took.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failures: dict[int, int] = field(default_factory=dict)
    answered: int = 0
    probes: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0


def get(path: str, port: int) -> bytes:
    """Return a request without a body."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


def post(path: str, port: int, body: bytes, headers: dict[str, str]) -> bytes:
    """Return a request with a body."""
    given = {"Host": f"127.0.0.1:{port}", **headers, "Content-Length": str(len(body))}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return head.encode() + b"\r\n" + body


def picture_form(png: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a form with one picture in the field `file`."""
    boundary = "----------------------------spicula"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="image.png"\r\n'
    body = head.encode() + b"Content-Type: image/png\r\n\r\n" + png + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


@dataclass(frozen=True)
class Plan:
    """How a service is asked.

    Attributes:
        clients: how many ask at a time.
        seconds: that are measured.
        warm_seconds: before them.
        probe: a request of one more client, sent `probe_seconds` after its last answer; None: nobody does.
    """

    clients: int
    seconds: float
    warm_seconds: float
    probe: bytes | None = None
    probe_seconds: float = 0.05


def run(port: int, requests: Sequence[bytes], plan: Plan) -> Load:
    """Load a service at a port of 127.0.0.1 with requests, which each client takes in turn, from another one on.

    Returns:
        What came in the measured time. Nobody waits any more when this returns.
    """
    return _Loop(port, requests, plan).run()


class _Loop:
    def __init__(self, port: int, requests: Sequence[bytes], plan: Plan) -> None:
        self._plan, self._load, self._poll = plan, Load(), select.epoll()
        self._clients = [_Client(port, requests, number, self._poll) for number in range(plan.clients)]
        self._prober = _Client(port, [plan.probe], 0, self._poll) if plan.probe else None
        self._all = [*self._clients, *([self._prober] if self._prober else [])]
        self._begin = time.perf_counter() + plan.warm_seconds
        self._end = self._begin + plan.seconds
        self._next_probe = 0.0

    def run(self) -> Load:
        for one in self._clients:
            one.send()
        self._until(self._begin)
        cpu, began = time.process_time(), time.perf_counter()
        self._until(self._end)
        self._load.cpu_seconds, self._load.seconds = time.process_time() - cpu, time.perf_counter() - began
        self._until(self._end + DRAIN_SECONDS)
        for one in self._all:
            one.close()
        self._poll.close()
        return self._load

    def _until(self, until: float) -> None:
        """Go on until a time; after the measured time nothing new is sent, and nobody waiting is the end as well."""
        while (now := time.perf_counter()) < until:
            is_draining = now >= self._end
            if is_draining and not any(one.is_waiting for one in self._all):
                return
            if self._prober and not self._prober.is_waiting and self._next_probe <= now < self._end:
                self._prober.send()
            by_number = {one.number: one for one in self._all}
            for number, what in self._poll.poll(min(until - now, self._plan.probe_seconds)):
                client = by_number[number]
                status = client.go_on(what)
                if status is not None:
                    self._take(client, status)

    def _take(self, client: "_Client", status: int) -> None:
        now = time.perf_counter()
        is_measured, is_ok = self._begin <= now < self._end, status == OK
        if client is self._prober:
            self._next_probe = now + self._plan.probe_seconds
        elif now < self._end:
            client.send()
        if is_ok and client is not self._prober:
            self._load.answered += 1
        elif not is_ok and now < self._end:
            self._load.failures[status] = self._load.failures.get(status, 0) + 1
        if is_ok and is_measured:
            (self._load.probes if client is self._prober else self._load.latencies).append(client.seconds)


class _Client:
    """One client, and its connection.

    Attributes:
        number: of its socket, which is another one when it has connected again.
        is_waiting: for an answer.
        seconds: that its last answer took.
    """

    def __init__(self, port: int, requests: Sequence[bytes], first: int, poll: select.epoll) -> None:
        self._port, self._requests, self._next, self._poll = port, requests, first, poll
        self._begun = self.seconds = 0.0
        self._left = memoryview(b"")
        self._got = b""
        self._missing = -1
        self.is_waiting = False
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.connect(("127.0.0.1", self._port))
        self._socket.setblocking(False)
        self.number = self._socket.fileno()
        self._poll.register(self.number, select.EPOLLIN)

    def close(self) -> None:
        self._socket.close()

    def send(self) -> None:
        """Send the next request."""
        self._begun, self.is_waiting = time.perf_counter(), True
        self._left = memoryview(self._requests[self._next % len(self._requests)])
        self._next += 1
        self._got, self._missing = b"", -1
        self._write()

    def _write(self) -> None:
        try:
            while self._left:
                self._left = self._left[self._socket.send(self._left) :]
        except BlockingIOError:
            self._poll.modify(self.number, select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            return  # what can be read says why
        else:
            self._poll.modify(self.number, select.EPOLLIN)

    def go_on(self, what: int) -> int | None:
        """Do what the socket is ready for; return the status of an answer that is complete."""
        if what & select.EPOLLOUT:
            self._write()
        if not what & ~select.EPOLLOUT:
            return None
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            was_waiting, self.is_waiting = self.is_waiting, False
            self._again()
            return 0 if was_waiting else None
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return None
        self.is_waiting = False
        self.seconds = time.perf_counter() - self._begun
        status = int(head[9:12])
        if b"connection: close" in head.lower():
            self._again()
        return status

    def _again(self) -> None:
        self._poll.unregister(self.number)
        self._socket.close()
        self._connect()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise SystemExit("an answer without Content-Length, which this client does not read")
