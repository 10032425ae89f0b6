"""WADO-RS: objects as they are stored, and frames of them as they are stored (PS3.18 section 10.4)."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
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
#: Syntaxes whose frames are told as Explicit VR Little Endian: they differ in the header alone.
_NATIVE = {
    "1.2.840.10008.1.2": "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1": "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99": "1.2.840.10008.1.2.1",
}


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


def frame_type(header: str, syntax: str) -> str:
    """Return the Content-Type of the parts that frames come in.

    Args:
        header: Accept of the request.
        syntax: in which the object is stored.

    Raises:
        Problem: 406, the client does not accept it.
    """
    native = _NATIVE.get(syntax)
    stored = media.BYTES if native else media.FRAMES.get(syntax)
    if syntax == _BIG_ENDIAN or stored is None:
        raise Problem(406, "not-acceptable", "frames of this transfer syntax are not given out; retrieve the object")
    for one in media.accepted(header):
        asked = one.options.get("type", "*/*").lower() if one.name == media.RELATED else one.name
        wanted = one.options.get("transfer-syntax", "*")
        is_syntax = wanted in ("*", syntax, native)
        # with any transfer syntax viewers ask for bytes, and read from the part which they are
        is_bytes = asked == media.BYTES and (native is not None or "transfer-syntax" in one.options)
        if is_syntax and (asked in ("*/*", "multipart/*", "image/*" if not native else "", stored) or is_bytes):
            return f"{media.BYTES if is_bytes else stored}; transfer-syntax={native or syntax}"
    raise Problem(
        406,
        "not-acceptable",
        f'frames of this object come as they are stored: Accept: multipart/related; type="{stored}"; transfer-syntax=*',
    )


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
            if not 1 <= number <= frames:
                raise Problem(404, "no-frame", "the object has no such frame")
            if pixels.length is None:
                return read_frame(pixels.stream, pixels.size, number - 1, frames)
            size = rows * columns * samples * bits
            if math.ceil(size * frames / 8) > pixels.length:
                raise RejectedImageError("DICOM pixel data is cut short")
            return _bits(pixels.stream, size * (number - 1), size)
    except (RejectedImageError, ValueError, TypeError, OverflowError):
        raise Problem(409, "no-pixels", "the object has no pixel data, or what there is is damaged") from None


async def frames(boundary: str, path: Path, numbers: Sequence[int], kind: str) -> AsyncIterator[bytes]:
    """Yield the body of an answer with frames, one in memory at a time.

    Args:
        boundary: between them.
        path: of the object.
        numbers: of the frames, from 1.
        kind: Content-Type of each.
    """
    for number in numbers:
        yield f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
        yield await asyncio.to_thread(frame, path, number)
    yield f"\r\n--{boundary}--\r\n".encode()


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
