"""Bodies of requests while they come: counted, timed, decompressed."""

import asyncio
import zlib
from collections.abc import Mapping, MutableMapping
from typing import Any

from starlette.types import Message, Receive, Scope

from spicula.serving import json_text
from spicula.serving.problems import Problem, beyond

#: Decompressed at a time: a body of 64 KiB can grow a thousandfold.
_PIECE = 2**20
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's names for the two formats (RFC 9110, section 8.4.1)


class Body:
    """What a route receives of one request.

    Args:
        scope: its Content-Encoding and Content-Length are taken out where the body is decompressed here.
        headers: by names in small letters.
        receive: what comes from the client.
        limits: of the service.
        held: bytes of all bodies of the service that are under way, by the limit that bounds them: "held-bytes" in
            memory, "spooled-bytes" on the disk. This one adds its own until it is let go.

    Attributes:
        is_json: whether it is JSON that a route parses as a whole.
        problem: what was wrong with it: whatever the route makes of that, this is the answer.

    Raises:
        Problem: 413, 415: what the headers say already.
    """

    def __init__(
        self,
        scope: Scope,
        headers: Mapping[str, str],
        receive: Receive,
        limits: Mapping[str, int],
        held: MutableMapping[str, int],
    ) -> None:
        self.problem: Problem | None = None
        self._limits, self._held, self._source = limits, held, receive
        self._deadline = asyncio.get_running_loop().time() + limits["body-seconds"]
        self._bytes = self._came = self._given = 0
        self._place = "held-bytes"
        self._came_whole = self._is_complete = False
        self._replay: bytes | None = None
        self._rest: bytes | None = None
        # the routes of KServe v2 read tensors themselves, in JSON or behind it, within limits of their own
        is_plain = "inference-header-content-length" not in headers and not scope["path"].endswith("/infer")
        self.is_json = is_plain and _is_json(headers.get("content-type", ""))
        self._check_length(headers.get("content-length", ""))
        self._inflate = _decompressor(headers.get("content-encoding", ""))
        if self._inflate is not None:
            scope["headers"] = [
                pair for pair in scope["headers"] if pair[0] not in (b"content-encoding", b"content-length")
            ]

    async def receive(self) -> Message:
        """Return the next message, as a route's `receive`."""
        if self._replay is not None:
            data, self._replay = self._replay, None
            return {"type": "http.request", "body": data, "more_body": False}
        if self._is_complete:
            return await self._source()
        try:
            return await self._next()
        except Problem as problem:
            self.problem = problem
            raise

    async def read_json(self) -> None:
        """Read a body that is JSON to its end, and see that it is not too large or too deep before it is parsed.

        Raises:
            Problem: 413, 400; and what reading raises.
        """
        pieces: list[bytes] = []
        size, most = 0, self._limits["json-text-bytes"]
        while not self._is_complete:
            message = await self.receive()
            if message["type"] != "http.request":
                break
            pieces.append(message["body"])
            size += len(message["body"])
            if size > most:
                raise beyond("json-text-bytes", most, "the JSON has more than {value} bytes")
        self._replay = b"".join(pieces)
        for _ in json_text.scan_depth(self._replay, self._limits):
            await asyncio.sleep(0)  # others go on meanwhile

    def spool(self) -> None:
        """Count its bytes as those of the disk: the route writes them there as they come."""
        self._held[self._place] -= self._bytes
        self._place = "spooled-bytes"
        self._held[self._place] += self._bytes

    def let_go(self) -> None:
        """Count its bytes no more: the request has ended."""
        self._held[self._place] -= self._bytes
        self._bytes = 0

    def _check_length(self, text: str) -> None:
        if not text.isascii() or not text.isdigit():
            return
        for name in ("json-text-bytes", "body-bytes") if self.is_json else ("body-bytes",):
            if int(text) > (most := self._limits[name]):
                raise beyond(name, most, "the body has more than {value} bytes")

    async def _next(self) -> Message:
        more, data = not self._came_whole, self._rest
        if data is not None:
            await asyncio.sleep(0)  # what grows a thousandfold keeps nobody else waiting
        else:
            try:
                async with asyncio.timeout_at(self._deadline):
                    message = await self._source()
            except TimeoutError:
                seconds = self._limits["body-seconds"]
                raise beyond("body-seconds", seconds, "the body took longer than {value} s") from None
            if message["type"] != "http.request":
                self._is_complete = True
                return message
            data, more = message.get("body", b""), message.get("more_body", False)
            self._came_whole = not more
            self._count(came=len(data))
        if self._inflate is not None:
            data = self._decompress(data)
            self._count(given=len(data))
            more = more or self._rest is not None
            if not more and not self._inflate.eof:
                raise Problem(400, "encoding", "the compressed body ends before its end")
        self._is_complete = not more
        return {"type": "http.request", "body": data, "more_body": more}

    def _count(self, came: int = 0, given: int = 0) -> None:
        self._came += came
        self._given += given
        before, self._bytes = self._bytes, max(self._came, self._given)
        self._held[self._place] += self._bytes - before
        if self._bytes > (most := self._limits["body-bytes"]):
            raise beyond("body-bytes", most, "the body has more than {value} bytes")
        if self._held[self._place] > (most := self._limits[self._place]):
            raise beyond(self._place, most, "requests under way have more than {value} bytes; try again shortly")

    def _decompress(self, data: bytes) -> bytes:
        assert self._inflate is not None
        try:
            out = self._inflate.decompress(data, _PIECE)
        except zlib.error:
            raise Problem(400, "encoding", "the body is not compressed as Content-Encoding says") from None
        if self._inflate.unused_data:
            raise Problem(400, "encoding", "the body goes on after the end of what is compressed")
        # a full piece: there may be more in what came, or in the decompressor itself
        self._rest = self._inflate.unconsumed_tail if len(out) == _PIECE else None
        return bytes(out)


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _decompressor(encoding: str) -> Any:
    """Return a decompressor of zlib for a Content-Encoding; None where there is nothing to decompress."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in _WINDOWS:
        raise Problem(
            415,
            "encoding",
            "a body comes as it is, or compressed with gzip or deflate",
            {"Accept-Encoding": "gzip, deflate"},
        )
    return zlib.decompressobj(_WINDOWS[name])
