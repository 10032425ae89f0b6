"""JSON from outside: its size and its nesting are known before it is parsed."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from spicula.serving.problems import Problem, beyond

_PIECE = 2**18
_QUOTE, _BACKSLASH = ord('"'), ord("\\")


def load(data: bytes, limits: Mapping[str, int], limit: str = "json-text-bytes") -> Any:
    """Return what JSON says.

    Args:
        data: UTF-8.
        limits: of the service.
        limit: the name of the one that bounds its size.

    Raises:
        Problem: 413 beyond its size; 400 beyond `json-depth`, or no JSON; NaN and Infinity are none.
    """
    if len(data) > (most := limits[limit]):
        raise beyond(limit, most, "the JSON has more than {value} bytes")
    for _ in scan_depth(data, limits):
        pass
    try:
        return json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Problem(400, "json", "the body is no JSON") from None


def check_depth(depth: int, limits: Mapping[str, int]) -> None:
    """Raise Problem 400 where a depth is beyond `json-depth`."""
    if depth > (most := limits["json-depth"]):
        raise beyond("json-depth", most, "the JSON is nested more than {value} deep")


def scan_depth(data: bytes, limits: Mapping[str, int]) -> Iterator[None]:
    """See that lists and objects are not nested too deep; pause after each piece of some milliseconds.

    Raises:
        Problem: 400 beyond `json-depth`.
    """
    if data.count(b"[") + data.count(b"{") <= limits["json-depth"]:
        return  # most requests end here
    depth, is_inside, is_escaped = 0, 0, False
    for start in range(0, len(data), _PIECE):
        piece = np.frombuffer(data, np.uint8, min(_PIECE, len(data) - start), start)
        escaped, is_escaped = _escaped(piece, is_escaped)
        quotes = (piece == _QUOTE) & ~escaped
        inside = (np.cumsum(quotes, dtype=np.int32) + is_inside) & 1
        # [ and { differ by one bit, and so do ] and }
        bits = piece | 0x20
        steps = ((bits == ord("{")).astype(np.int32) - (bits == ord("}"))) * (1 - inside)
        levels = np.cumsum(steps, dtype=np.int32) + depth
        depth, is_inside = int(levels[-1]), int(inside[-1])
        check_depth(int(levels.max()), limits)
        yield


def _escaped(piece: np.ndarray[Any, Any], is_first: bool) -> tuple[np.ndarray[Any, Any], bool]:
    """Return which bytes follow an odd run of backslashes, and whether the byte after the piece does."""
    escaped = np.zeros(len(piece) + 1, bool)
    escaped[0] = is_first
    places = np.flatnonzero(piece == _BACKSLASH)
    if len(places) == 0:
        return escaped[:-1], bool(escaped[-1])
    starts = np.concatenate(([True], np.diff(places) > 1))
    first = places[starts]
    lengths = np.diff(np.concatenate((np.flatnonzero(starts), [len(places)])))
    ends = first + lengths
    odd = lengths % 2 == 1
    if is_first and first[0] == 0:
        odd[0] = not odd[0]  # the first backslash is itself escaped
    escaped[ends[odd]] = True
    return escaped[:-1], bool(escaped[-1])


def _refuse(word: str) -> None:
    raise ValueError(word)
