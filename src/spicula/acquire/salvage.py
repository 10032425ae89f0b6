"""What arrived whole of a zip that was cut short while it was sent.

A zip that is made while it is sent says a member's size and checksum after the member (PKWARE's APPNOTE, 4.3.9, "data
descriptor"), and its list of members at the very end. So what is there is read from the front, and only members that
agree with their checksum are kept.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_LOCAL = struct.Struct("<4s5H3L2H")  # APPNOTE 4.3.7
_LOCAL_SIGNATURE, _DESCRIPTOR_SIGNATURE = b"PK\x03\x04", b"PK\x07\x08"
_ENCRYPTED, _SIZES_FOLLOW = 0x1, 0x8
_DEFLATED = 8
_CHUNK_BYTES = 2**18


@dataclass(frozen=True)
class _Member:
    name: str
    sizes_follow: bool
    checksum: int
    packed_bytes: int
    bytes: int


def whole_members(archive: Path, to: Path, most_bytes: int) -> Iterator[tuple[str, Path]]:
    """Unpack the members that are whole, one after the other, up to the first that is not.

    Args:
        archive: a zip with deflated members, cut anywhere.
        to: a file to unpack into, always the same one: move it away before the next member is asked for.
        most_bytes: unpacked, of all members; what goes beyond is not unpacked.

    Yields:
        The member's name as the archive has it, which is nothing to make a path of, and `to`.
    """
    left = most_bytes
    with archive.open("rb") as stream:
        while (member := _next_member(stream)) is not None and _inflate(stream, member, to, left):
            left -= to.stat().st_size
            yield member.name, to
    to.unlink(missing_ok=True)


def _next_member(stream: BinaryIO) -> _Member | None:
    head = stream.read(_LOCAL.size)
    if len(head) < _LOCAL.size or head[:4] != _LOCAL_SIGNATURE:
        return None
    _, _, flags, method, _, _, checksum, packed, size, name_length, extra_length = _LOCAL.unpack(head)
    name = stream.read(name_length)
    stream.seek(extra_length, 1)
    if len(name) < name_length or flags & _ENCRYPTED or method != _DEFLATED:
        return None
    return _Member(name.decode("utf-8", "replace"), bool(flags & _SIZES_FOLLOW), checksum, packed, size)


def _inflate(stream: BinaryIO, member: _Member, to: Path, most_bytes: int) -> bool:
    """Unpack the member at the stream's position; say whether it is whole. The stream then stands behind it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    start = stream.tell()
    checksum = written = read = 0
    with to.open("wb") as output:
        while not inflater.eof:
            packed = inflater.unconsumed_tail or stream.read(_CHUNK_BYTES)
            if not packed:
                return False
            read += len(packed) if not inflater.unconsumed_tail else 0
            try:
                data = inflater.decompress(packed, _CHUNK_BYTES)
            except zlib.error:
                return False
            checksum = zlib.crc32(data, checksum)
            written += len(data)
            if written > most_bytes:
                return False
            output.write(data)
    packed_bytes = read - len(inflater.unused_data)
    stream.seek(start + packed_bytes)
    if not member.sizes_follow:
        return (checksum, packed_bytes, written) == (member.checksum, member.packed_bytes, member.bytes)
    return _read_descriptor(stream, (checksum, packed_bytes, written))


def _read_descriptor(stream: BinaryIO, found: tuple[int, int, int]) -> bool:
    """Say whether a data descriptor follows that agrees, with or without its signature, of 32 or of 64 bits."""
    data = stream.read(24)
    start = 4 if data.startswith(_DESCRIPTOR_SIGNATURE) else 0
    for layout in (struct.Struct("<3L"), struct.Struct("<L2Q")):
        end = start + layout.size
        if len(data) >= end and layout.unpack(data[start:end]) == found:
            stream.seek(end - len(data), 1)
            return True
    return False
