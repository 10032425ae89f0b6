"""Forms with files: streamed to temporary files of ours, hashed on the way, gone when the request has ended.

Nothing of a part's headers goes further than `Upload.filename`, which is for recognising views alone.
"""

import asyncio
import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from spicula.serving.problems import Problem, beyond
from spicula.serving.service import Service

#: So many bytes are written and hashed in a thread; what is less takes less time than to change threads.
_WRITE_BYTES = 2**20


@dataclass(frozen=True)
class Upload:
    """One uploaded file.

    Attributes:
        field: name of its field in the form.
        filename: as the client says; only for recognising a view (L_CC), never to be logged, stored or echoed.
        path: a temporary file of ours, deleted when the request has ended; whoever wants to keep it renames it.
        bytes: its size.
        sha256: of its bytes, in lower-case hexadecimal.
        media_type: of its part, as the client says; "" where it says nothing.
    """

    field: str
    filename: str | None
    path: Path
    bytes: int
    sha256: str
    media_type: str = ""


@dataclass
class Form:
    """A form that was read to its end.

    Attributes:
        uploads: its files, in their order.
        fields: name and text of what is no file, in their order.
    """

    uploads: list[Upload] = field(default_factory=list)
    fields: list[tuple[str, str]] = field(default_factory=list)

    def value(self, name: str) -> str | None:
        """Return the text of the last field of a name; None where there is none."""
        return next((text for each, text in reversed(self.fields) if each == name), None)


async def read(request: Request, service: Service) -> list[Upload]:
    """Return the files of a request's multipart/form-data.

    Raises:
        Problem: 415 it is none; 400 it is damaged; 413 beyond `parts`, `field-bytes`, `image-bytes`, `body-bytes`;
            408 it came too slowly; 503 there is no room for it on the disk.
    """
    return (await read_form(request, service)).uploads


async def read_form(request: Request, service: Service) -> Form:
    """Return the files and fields of a request's multipart/form-data; see `read`."""
    return await _read(request, service, b"multipart/form-data")


async def read_related(request: Request, service: Service) -> list[Upload]:
    """Return the parts of a request's multipart/related (RFC 2387), each as a file without a field; see `read`."""
    return (await _read(request, service, b"multipart/related")).uploads


async def _read(request: Request, service: Service, media_type: bytes) -> Form:
    given, options = parse_options_header(request.headers.get("content-type", ""))
    if given.lower() != media_type:
        raise Problem(415, "media-type", f"send the body as {media_type.decode()}", {"Accept": media_type.decode()})
    if not options.get(b"boundary"):
        raise Problem(400, "form", "the Content-Type names no boundary")
    request.state.body.spool()
    closing: ExitStack = request.state.closing
    try:
        parts = _Parts(service, closing, options[b"boundary"], is_form=media_type == b"multipart/form-data")
        async for data in request.stream():
            parts.feed(data)
            if parts.waiting_bytes > _WRITE_BYTES:
                await asyncio.to_thread(parts.write)
        return parts.finish()
    except FormParserError:
        raise Problem(400, "form", f"the body is no whole {media_type.decode()}") from None
    except OSError:
        raise Problem(
            503, "disk", "there is no room for uploads on the disk; try again later", {"Retry-After": "10"}
        ) from None


class _Part:
    """The part that is being read."""

    def __init__(self) -> None:
        self.disposition = self.media_type = b""
        self.name, self.filename = "", None  # type: str, str | None
        self.stream: BinaryIO | None = None
        self.path = Path()
        self.text = bytearray()
        self.bytes = 0
        self.sha256 = hashlib.sha256()


class _Parts:
    """Turns a body into files and fields, piece by piece."""

    def __init__(self, service: Service, closing: ExitStack, boundary: bytes, is_form: bool) -> None:
        self.form = Form()
        self.waiting_bytes = 0
        self._waiting: list[tuple[_Part, bytes]] = []
        self._service, self._closing, self._is_form = service, closing, is_form
        self._count, self._is_whole = 0, False
        self._part = _Part()
        self._name = self._value = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._add_to_name,
                "on_header_value": self._add_to_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._open,
                "on_part_data": self._add,
                "on_part_end": self._end,
                "on_end": self._end_all,
            },
        )

    def feed(self, data: bytes) -> None:
        self._parser.write(data)

    def write(self) -> None:
        """Write and hash what has come so far."""
        for part, data in self._waiting:
            assert part.stream is not None
            part.stream.write(data)
            part.sha256.update(data)
        self._waiting.clear()
        self.waiting_bytes = 0

    def finish(self) -> Form:
        self._parser.finalize()
        if not self._is_whole:
            raise FormParserError("no last boundary")
        return self.form

    def _begin(self) -> None:
        self._count += 1
        if self._count > self._service.limits["parts"]:
            raise beyond("parts", self._service.limits["parts"], "the body has more than {value} parts")
        self._part = _Part()

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._part.disposition = self._value
        elif self._name.lower() == b"content-type":
            self._part.media_type = self._value
        self._name = self._value = b""

    def _open(self) -> None:
        part = self._part
        _, options = parse_options_header(part.disposition)
        if self._is_form and b"name" not in options:
            raise Problem(400, "form", "a part of the form has no name")
        part.name = options.get(b"name", b"").decode(errors="replace")
        if b"filename" in options:
            part.filename = options[b"filename"].decode(errors="replace")
        elif self._is_form:
            return
        part.path = self._service.spool.path()
        part.stream = part.path.open("xb", buffering=0)
        self._closing.callback(part.path.unlink, missing_ok=True)
        self._closing.callback(part.stream.close)

    def _add(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        part.bytes += end - start
        name = "field-bytes" if part.stream is None else "image-bytes"
        if part.bytes > (value := self._service.limits[name]):
            what = "a field of the form" if part.stream is None else "a file"
            raise beyond(name, value, f"{what} has more than {{value}} bytes")
        if part.stream is None:
            part.text += data[start:end]
        else:
            self._waiting.append((part, data[start:end]))
            self.waiting_bytes += end - start

    def _end(self) -> None:
        part = self._part
        if part.stream is None:
            self.form.fields.append((part.name, part.text.decode(errors="replace")))
            return
        self.write()
        part.stream.close()
        self.form.uploads.append(
            Upload(
                part.name,
                part.filename,
                part.path,
                part.bytes,
                part.sha256.hexdigest(),
                part.media_type.decode("latin-1").strip().lower(),
            )
        )

    def _end_all(self) -> None:
        self._is_whole = True
