"""WADO-RS: objects as they are stored, and frames as they are stored or as clients ask (PS3.18 section 10.4)."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from spicula.errors import RejectedImageError
from spicula.headers.dicom import open_pixels
from spicula.serving.dicomweb import media
from spicula.serving.dicomweb.index import Instance
from spicula.serving.problems import Problem

_PIECE = 2**20
_MOST_FRAMES = 200  # of one request
_SIZES = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
#: What uncompressed frames are told as, and what is meant where bytes are asked for and no syntax (PS3.18 8.7.3.5.2).
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
#: Syntaxes whose frames are told as Explicit VR Little Endian: they differ in the header alone.
_NATIVE = {
    "1.2.840.10008.1.2": _EXPLICIT_LITTLE,
    "1.2.840.10008.1.2.1": _EXPLICIT_LITTLE,
    "1.2.840.10008.1.2.1.99": _EXPLICIT_LITTLE,
}


@dataclass(frozen=True)
class FrameForm:
    """In which form frames are given out.

    Attributes:
        kind: Content-Type of each.
        is_single: the one frame comes without parts around it.
        is_decoded: it is to be decompressed.
    """

    kind: str
    is_single: bool
    is_decoded: bool


def check_accepted(header: str, instances: Sequence[Instance]) -> bool:
    """See that a client accepts objects as they are stored; return whether it wants the one object without parts.

    Raises:
        Problem: 406, it does not.
    """
    syntaxes = {one.syntax for one in instances}
    for one in media.accepted(header):
        is_related = one.name == media.RELATED and one.options.get("type", media.DICOM) == media.DICOM
        is_single = one.name == media.DICOM and len(instances) == 1
        if one.name in ("*/*", "multipart/*") or is_related or is_single:
            syntax = one.options.get("transfer-syntax", "*")
            if syntax == "*" or syntaxes == {syntax}:
                return is_single
    raise Problem(
        406,
        "not-acceptable",
        'objects come as they are stored: Accept: multipart/related; type="application/dicom"; transfer-syntax=*',
    )


async def objects(boundary: str, files: Sequence[tuple[str, Path]]) -> AsyncIterator[bytes]:
    """Yield the body of an answer with objects.

    Args:
        boundary: between them.
        files: transfer syntax and file of each.
    """
    parts = [(f"Content-Type: {media.DICOM}; transfer-syntax={syntax}", pieces(path)) for syntax, path in files]
    async for piece in media.multipart(boundary, parts):
        yield piece


async def pieces(path: Path) -> AsyncIterator[bytes]:
    """Yield the bytes of a file."""
    stream = await asyncio.to_thread(path.open, "rb")
    try:
        while piece := await asyncio.to_thread(stream.read, _PIECE):
            yield piece
    finally:
        stream.close()


def frame_form(header: str, syntax: str, count: int) -> FrameForm:
    """Return in which form frames are given out.

    Args:
        header: Accept of the request.
        syntax: in which the object is stored.
        count: how many frames are asked for.

    Raises:
        Problem: 406, there is no form that the client accepts.
    """
    stored = media.BYTES if syntax in _NATIVE else media.FRAMES.get(syntax)
    for one in media.accepted(header):
        asked = media.related_type(one)
        is_single = asked is None and one.name != "*/*"
        if is_single and count > 1:
            continue
        kind = _frame_kind(asked or one.name, one.options.get("transfer-syntax"), syntax, stored)
        if kind is not None:
            is_decoded = syntax not in _NATIVE and kind.endswith(f"={_EXPLICIT_LITTLE}")
            return FrameForm(kind, is_single, is_decoded)
    offered = f'type="{media.BYTES}"' if stored in (None, media.BYTES) else f'type="{stored}"; transfer-syntax=*'
    raise Problem(
        406,
        "not-acceptable",
        f"frames of this object come with Accept: {media.RELATED}; {offered}; one alone also without {media.RELATED}",
    )


def _frame_kind(asked: str, wanted: str | None, syntax: str, stored: str | None) -> str | None:
    """Return the Content-Type for a range of media types, and the transfer syntax in it; None where it does not fit."""
    plain = f"{media.BYTES}; transfer-syntax={_EXPLICIT_LITTLE}"
    if syntax in _NATIVE:
        is_syntax = wanted in (None, "*", syntax, _EXPLICIT_LITTLE)
        return plain if is_syntax and media.matches(asked, media.BYTES) else None
    if wanted == _EXPLICIT_LITTLE or (wanted is None and asked == media.BYTES) or syntax == _BIG_ENDIAN:
        is_syntax = wanted in (None, "*", _EXPLICIT_LITTLE)
        return plain if is_syntax and media.matches(asked, media.BYTES) else None
    if stored is None or wanted not in (None, "*", syntax):
        return None
    if asked == media.BYTES:  # with any transfer syntax viewers ask for bytes, and read from the part which they are
        return f"{media.BYTES}; transfer-syntax={syntax}"
    return f"{stored}; transfer-syntax={syntax}" if media.matches(asked, stored) else None


def frame_numbers(text: str) -> list[int]:
    """Return the numbers of frames in a path, from 1.

    Raises:
        Problem: 400, it is no list of them.
    """
    words = text.split(",")
    if len(words) > _MOST_FRAMES:
        raise Problem(400, "frames", f"at most {_MOST_FRAMES} frames are given out at a time")
    if not all(word.isascii() and word.isdigit() and len(word) < len("1000000000") and int(word) for word in words):
        raise Problem(400, "frames", "frames are named by numbers from 1, with commas between them")
    return [int(word) for word in words]


def frame(path: Path, number: int) -> bytes:
    """Return a frame as it is stored.

    Args:
        path: of the object.
        number: from 1.

    Raises:
        Problem: 404 there is no such frame, 409 the pixel data is damaged.
    """
    from spicula.imaging.fragments import read_frame

    try:
        with open_pixels(path, _SIZES) as pixels:
            rows, columns, samples, bits, frames = (int(pixels.dataset.get(key) or 1) for key in _SIZES)
            check_there(number, frames)
            if pixels.length is None:
                return read_frame(pixels.stream, pixels.size, number - 1, frames)
            size = rows * columns * samples * bits
            if math.ceil(size * frames / 8) > pixels.length:
                raise RejectedImageError("DICOM pixel data is cut short")
            return _bits(pixels.stream, size * (number - 1), size)
    except (RejectedImageError, ValueError, TypeError, OverflowError):
        raise Problem(409, "no-pixels", "the object has no pixel data, or what there is is damaged") from None


async def frames(
    boundary: str, first: bytes, numbers: Sequence[int], kind: str, get: Callable[[int], Awaitable[bytes]]
) -> AsyncIterator[bytes]:
    """Yield the body of an answer with frames, one in memory at a time.

    Args:
        boundary: between them.
        first: the first of them.
        numbers: of all of them, from 1.
        kind: Content-Type of each.
        get: returns a frame by its number.
    """
    for place, number in enumerate(numbers):
        content = await get(number) if place else first
        yield f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
        yield content
    yield f"\r\n--{boundary}--\r\n".encode()


def check_there(number: int, frames: int) -> None:
    """See that an object has a frame.

    Raises:
        Problem: 404, it has not.
    """
    if not 1 <= number <= frames:
        raise Problem(404, "no-frame", "the object has no such frame")


def pixels(path: Path) -> bytes:
    """Return uncompressed pixel data as they are stored.

    Raises:
        Problem: 409, there are none, or they are damaged.
    """
    try:
        with open_pixels(path, _SIZES) as element:
            return element.stream.read(element.length or 0)
    except RejectedImageError:
        raise Problem(409, "no-pixels", "the object has no pixel data, or what there is is damaged") from None


def is_native(syntax: str) -> bool:
    """Whether a transfer syntax has uncompressed pixels, little endian."""
    return syntax in _NATIVE


def _bits(stream: BinaryIO, begin: int, count: int) -> bytes:
    """Return bits of a stream from where it stands; frames of one bit a pixel begin within a byte (PS3.5 8.1.1)."""
    import numpy as np

    first, last = begin // 8, math.ceil((begin + count) / 8)
    stream.seek(first, 1)
    data = stream.read(last - first)
    if begin % 8 == 0 and count % 8 == 0:
        return data
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[begin % 8 :][:count]
    return np.packbits(bits, bitorder="little").tobytes()
