"""Encapsulated pixel data (DICOM PS3.5 annex A.4): which fragments make up a frame, without reading the others."""

import struct
from typing import BinaryIO

from spicula.errors import RejectedImageError

#: Most fragments in one file: a gigabyte of empty ones would take minutes to walk.
MAX_FRAGMENTS = 100_000

_ITEM, _DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
# The last bytes of a frame before padding: end of image (JPEG, JPEG-LS) or of codestream (JPEG 2000).
_END_MARKER = b"\xff\xd9"


def read_frame(stream: BinaryIO, size: int, frame: int, frames: int) -> bytes:
    """Return the compressed bytes of one frame.

    A frame of a file that holds one is all its fragments. With as many fragments as frames, each is one (a frame has at
    least one, PS3.5 A.4), whatever an offset table says. Otherwise the basic offset table tells, or, where it is empty,
    the end markers that close each frame of the JPEG family. The extended offset table is not needed: it exists only
    where a frame is one fragment (PS3.3 C.7.6.3.1.8).

    Args:
        stream: the file, at the first byte after the length of the element Pixel Data.
        size: of the file, in bytes.
        frame: which, from 0.
        frames: how many the header says there are.

    Raises:
        RejectedImageError: cut short, without fragments, or with fragments that do not make up so many frames.
    """
    table, fragments = _walk(stream, size)
    if not fragments:
        raise RejectedImageError("it has no pixel data")
    if frames == 1:
        ours = fragments
    elif len(fragments) == frames:
        ours = fragments[frame : frame + 1]
    elif table:
        ours = _by_table(table, fragments, frame, frames)
    else:
        ours = _by_end_markers(stream, fragments, frame, frames)
    parts = []
    for start, length in ours:
        stream.seek(start)
        parts.append(stream.read(length))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _walk(stream: BinaryIO, size: int) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """Return the basic offset table, and (start, length) of each fragment's bytes in the file."""
    items: list[tuple[int, int]] = []
    while True:
        head = stream.read(8)
        if len(head) < 8:
            raise RejectedImageError("its pixel data ends without a delimiter: cut short")
        group, element, length = struct.unpack("<HHI", head)
        if (group, element) == _DELIMITER:
            break
        start = stream.tell()
        if (group, element) != _ITEM:
            raise RejectedImageError("its pixel data is not a sequence of fragments, as its transfer syntax says")
        if length > size - start:
            raise RejectedImageError(f"a fragment of its pixel data is declared with {length} bytes: cut short")
        items.append((start, length))
        if len(items) > MAX_FRAGMENTS:
            raise RejectedImageError(f"its pixel data has more than {MAX_FRAGMENTS} fragments")
        stream.seek(length, 1)
    if not items:
        raise RejectedImageError("it has no pixel data")
    (start, length), fragments = items[0], items[1:]
    count = min(length // 4, MAX_FRAGMENTS)
    stream.seek(start)
    return struct.unpack(f"<{count}I", stream.read(4 * count)), fragments


def _by_table(
    table: tuple[int, ...], fragments: list[tuple[int, int]], frame: int, frames: int
) -> list[tuple[int, int]]:
    """Return the fragments from the frame's offset to the next one; offsets count from the first fragment's item."""
    origin = fragments[0][0]
    number_at = {start - origin: number for number, (start, _) in enumerate(fragments)}
    firsts = [number_at.get(offset) for offset in table]
    known = [number for number in firsts if number is not None]
    if len(table) != frames or len(known) != frames or known[0] != 0 or known != sorted(set(known)):
        raise RejectedImageError("the offset table of its pixel data points to where no frame begins")
    return fragments[known[frame] : [*known, len(fragments)][frame + 1]]


def _by_end_markers(
    stream: BinaryIO, fragments: list[tuple[int, int]], frame: int, frames: int
) -> list[tuple[int, int]]:
    ends = [0]
    for number, (start, length) in enumerate(fragments, start=1):
        stream.seek(start + max(0, length - 3))
        if stream.read(min(length, 3)).rstrip(b"\0").endswith(_END_MARKER):
            ends.append(number)
    if len(ends) != frames + 1:
        raise RejectedImageError(
            f"its {len(fragments)} fragments make up {len(ends) - 1} frames, its header says {frames}"
        )
    return fragments[ends[frame] : ends[frame + 1]]
