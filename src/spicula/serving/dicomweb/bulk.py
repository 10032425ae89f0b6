"""Values that are too large for a header, and where they are retrieved: BulkDataURI (PS3.18 annex F.2.6).

In the index such an element has as its BulkDataURI the way to it alone: its tag, or through sequences
SEQUENCE-ITEM-TAG, items counted from 1. What is told to clients is an address.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula.errors import RejectedImageError
from spicula.headers.dicom import Source, parse_dicom
from spicula.headers.opening import opened
from spicula.serving.problems import Problem
from spicula.silence import silence

if TYPE_CHECKING:
    import pydicom

#: Pixel Data: it is given out as frames are.
PIXELS = "7FE00010"
_WAY = re.compile(r"[0-9A-F]{8}(-[1-9][0-9]{0,5}-[0-9A-F]{8}){0,15}")
#: Bytes of a number by value representation (PS3.5 section 6.2): bulk data are little endian (PS3.18 section 8.7.3).
_SIZES = {
    **dict.fromkeys(("OW", "US", "SS", "AT"), 2),
    **dict.fromkeys(("OL", "OF", "FL", "UL", "SL"), 4),
    **dict.fromkeys(("OD", "OV", "FD", "SV", "UV"), 8),
}
_EVERYTHING = 2**31  # bytes; a file has less


def with_ways(header: Mapping[str, Any], mark: str, before: str = "") -> dict[str, Any]:
    """Return a header in which what is too large names the way to it.

    Args:
        header: DICOM JSON.
        mark: what such elements have as their BulkDataURI.
        before: the way to this header.
    """
    found = dict(header)
    for tag, element in header.items():
        if element.get("BulkDataURI") == mark:
            found[tag] = {"vr": element["vr"], "BulkDataURI": f"{before}{tag}"}
        elif element.get("vr") == "SQ" and "Value" in element:
            items = [with_ways(one, mark, f"{before}{tag}-{n}-") for n, one in enumerate(element["Value"], start=1)]
            found[tag] = {"vr": "SQ", "Value": items}
    return found


def linked(header: Mapping[str, Any], address: str) -> dict[str, Any]:
    """Return a header with addresses in place of ways.

    Args:
        header: DICOM JSON, of the index.
        address: of the object.
    """
    found = dict(header)
    for tag, element in header.items():
        if "BulkDataURI" in element:
            found[tag] = {**element, "BulkDataURI": f"{address}/bulkdata/{element['BulkDataURI']}"}
        elif element.get("vr") == "SQ" and "Value" in element:
            found[tag] = {"vr": "SQ", "Value": [linked(one, address) for one in element["Value"]]}
    return found


def ways(header: Mapping[str, Any]) -> set[str]:
    """Return the ways that a header names.

    Args:
        header: DICOM JSON, of the index.
    """
    found = {element["BulkDataURI"] for element in header.values() if "BulkDataURI" in element}
    for element in header.values():
        if element.get("vr") == "SQ":
            found = found.union(*(ways(one) for one in element.get("Value", ())))
    return found


def read(path: Path, way: str) -> bytes:
    """Return the bytes of a value, numbers little endian.

    Args:
        path: of the object.
        way: to the value; not to pixels.

    Raises:
        Problem: 404, the object has no such value.
    """
    gone = no_such()
    if not _WAY.fullmatch(way):
        raise gone
    words = way.split("-")
    try:
        with opened(path) as stream, silence:
            source = Source(stream, os.fstat(stream.fileno()).st_size)
            dataset, _ = parse_dicom(source, [int(words[0], 16)], defer_size=_EVERYTHING)
            is_little = bool(dataset.original_encoding[1])
            for tag, item in zip(words[:-1:2], words[1::2], strict=True):
                dataset = dataset[int(tag, 16)].value[int(item) - 1]
            return _bytes(dataset, int(words[-1], 16), is_little)
    except (RejectedImageError, RecursionError, MemoryError):
        raise gone from None
    except Exception:  # pydicom converts on access, and what it raises is not documented
        raise gone from None


def no_such() -> Problem:
    """Return the problem of bulk data that an object has not."""
    return Problem(404, "no-bulkdata", "the object has no such bulk data; its metadata name what there is")


def _bytes(dataset: "pydicom.Dataset", tag: int, is_little: bool) -> bytes:
    element = dataset.get_item(tag)
    value = None if element is None else element.value
    if not isinstance(value, bytes):
        raise RejectedImageError("its value is not in bytes")
    size = _SIZES.get(str(element.VR), 1)
    if is_little or size == 1:
        return value
    import numpy as np

    return np.frombuffer(value, f">u{size}").astype(f"<u{size}").tobytes()
