"""A service as a process of its own, with a few routes that tests need: started, spoken to, ended.

python core_server.py ARGUMENT...   is   spicula serve ARGUMENT...   with these routes
"""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60


class Running:
    """A service that runs."""

    def __init__(self, *arguments, environment=None, folder=None):
        self._log = tempfile.NamedTemporaryFile("r")  # noqa: SIM115 - a pipe that nobody reads would stop it
        with Path(self._log.name).open("a") as stderr:  # of its own position: what reads here moves another
            self.process = subprocess.Popen(
                [sys.executable, __file__, "bundle", "--port", "0", *map(str, arguments)],
                stderr=stderr,
                cwd=folder,
                env=os.environ | (environment or {}),
            )
        wait_until(lambda: "\nready" in self.log() or self.process.poll() is not None)
        found = re.match(r"serving on https?://(?:\[.*\]|[^:]*):(\d+) ", self.log())
        assert found, self.log()
        self.port = int(found[1])

    def log(self):
        """Return what was written to stderr so far."""
        self._log.seek(0)
        return self._log.read()

    def close(self):
        self.process.kill()
        self.process.wait()
        self._log.close()

    def connect(self, timeout=SECONDS):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def ask(self, method, path, body=None, headers=None):
        """Ask on a connection of its own; return status, headers, and the body, parsed where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, parsed(answer.headers, answer.read())
        finally:
            connection.close()

    def end(self, number=signal.SIGTERM):
        """Send a signal; return the exit status and all that was written to stderr."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS), self.log()


def parsed(headers, body):
    return json.loads(body) if "json" in (headers.get("content-type") or "") else body


class Answers:
    """The answers that come on one connection, of which `http.client` would read the next into its own buffer."""

    def __init__(self, stream):
        self._file = stream.makefile("rb")

    def makefile(self, mode):
        return self

    def close(self):
        pass  # by `http.client`, after each answer

    def __getattr__(self, name):
        return getattr(self._file, name)


def read_answer(stream):
    """Read one answer from a socket, or the next from `Answers`.

    Returns:
        Its status, headers and body; None where the connection was closed.
    """
    answer = http.client.HTTPResponse(stream)
    try:
        answer.begin()
    except (http.client.BadStatusLine, ConnectionError):
        return None
    return answer.status, answer.headers, parsed(answer.headers, answer.read())


@contextmanager
def running(*arguments, **options):
    server = Running(*arguments, **options)
    try:
        yield server
    finally:
        server.close()


def wait_until(condition):
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def router(service):
    """Routes that do what routes of models do, without models."""
    from fastapi import APIRouter, Request
    from fastapi.responses import StreamingResponse
    from pydantic import BaseModel

    from spicula.serving import forms, json_text

    routes = APIRouter(prefix="/test")

    class Numbers(BaseModel):
        numbers: list[float]

    @routes.post("/form")
    async def form(request: Request) -> dict:
        found = await forms.read_form(request, service)
        return {
            "uploads": [
                [one.field, one.bytes, one.sha256, one.path.stat().st_size, one.media_type] for one in found.uploads
            ],
            "fields": found.fields,
            "folder_mode": oct(found.uploads[0].path.parent.stat().st_mode) if found.uploads else None,
            "folder": str(found.uploads[0].path.parent) if found.uploads else None,
        }

    @routes.post("/related")
    async def related(request: Request) -> list:
        return [[one.bytes, one.sha256, one.media_type] for one in await forms.read_related(request, service)]

    @routes.post("/json")
    async def numbers(numbers: Numbers) -> float:
        return sum(numbers.numbers)

    @routes.post("/raw-json")
    async def raw(request: Request) -> dict:
        return {"value": json_text.load(await request.body(), service.limits)}

    @routes.post("/bytes")
    async def size(request: Request) -> int:
        return sum([len(data) async for data in request.stream()])

    @routes.get("/sleep")
    async def sleep(seconds: float) -> dict:
        await asyncio.sleep(seconds)
        return {"slept": seconds}

    @routes.get("/large")
    async def large() -> StreamingResponse:
        async def pieces():
            for _ in range(256):
                yield bytes(2**20)

        return StreamingResponse(pieces())

    @routes.get("/fail")
    async def fail(canary: str) -> None:
        raise ValueError(canary)

    @routes.get("/fail-late")
    async def fail_late() -> StreamingResponse:
        async def pieces():
            yield b"begun"
            raise ValueError("canary")

        return StreamingResponse(pieces())

    @routes.post("/audit")
    async def audit(request: Request) -> dict:
        service.audit.write(request, "predict", inputs=["0" * 64], model="net", answer={"benign": 0.5})
        return {"who": request.state.who, "request": request.state.request_id}

    return routes


if __name__ == "__main__":
    from spicula import cli
    from spicula.serving import app

    app.PARTS = ()
    app.ROUTES = (app.health, app.metrics, sys.modules[__name__])
    sys.exit(cli.main(["serve", *sys.argv[1:]]))
