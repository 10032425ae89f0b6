"""JSON of any size read in small steps: its depth and its text bounded, long rows of numbers left as text.

`json.loads` holds the interpreter until it is done and makes an object of 32 bytes of each number: a tensor of 64 MiB
of text would stop every other request for seconds. So the long rows are cut out first, and read later, in pieces, into
the array that they are (`numbers`). What remains is small.
"""

import json
import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from spicula.serving import json_text
from spicula.serving.problems import Problem, beyond

Buffer = bytes | bytearray | memoryview

#: A row is cut out from this length on, in bytes. Shorter ones cost less than to cut.
LONG = 1024
#: Bytes that one step looks at: a few ms.
STEP = 2**18
_PIECE = 2**16
#: Stands in the place of a row; nobody else knows it.
_MARK = f"row {secrets.token_hex(16)} "

# A string that is not closed ends where the text does, so that nothing in it is taken for a bracket.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)
# What a row of numbers and booleans is made of: brackets, commas, spaces, digits, and the letters of true and false.
_ROW = re.compile(rb"[\[\]0-9eE+\-., \t\r\ntruefals]*+")
_VALUES = b"0123456789eE+-. \t\r\ntruefals"
_AS_ONE = bytes.maketrans(_VALUES, b"1" * len(_VALUES))
_NO_BRACKETS = bytes.maketrans(b"[]", b"  ")


@dataclass(frozen=True)
class Row:
    """A list of numbers or booleans that is still text; it may hold lists of such."""

    text: memoryview


def read(text: Buffer, limits: Mapping[str, int]) -> dict[str, Any]:
    """Read a JSON object; lists of numbers or booleans of `LONG` bytes or more are `Row` in it.

    Args:
        text: UTF-8.
        limits: those of the service: json-bytes, json-depth, json-text-bytes.

    Raises:
        Problem: 400 or 413: it is not JSON, not an object, or beyond a limit.
    """
    view = memoryview(text)
    if len(view) > limits["json-bytes"]:
        raise beyond("json-bytes", limits["json-bytes"], "the JSON has more than {value} bytes; send tensors as binary")
    parts, rows = _cut(view, limits)
    try:
        found = json.loads(b"".join(parts).decode("utf-8"), parse_constant=_no_constant)
    except ValueError:
        raise _no_json() from None
    if not isinstance(found, dict):
        raise Problem(400, "json", "the JSON of a request is an object")
    return _put_back(found, rows) if rows else found


def _cut(view: memoryview, limits: Mapping[str, int]) -> tuple[list[bytes], list[Row]]:
    """Return the text with a mark in the place of each long row, in parts, and the rows."""
    parts: list[bytes] = []
    rows: list[Row] = []
    left, depth, at, begin, short = limits["json-text-bytes"], 0, 0, 0, 0
    while True:
        end = min(len(view), begin + left)
        token = _TOKEN.search(view, at, end)
        if token is None:
            break
        mark, at = view[token.start()], token.end()
        if mark in b"[{":
            depth += 1
            json_text.check_depth(depth, limits)
            if mark == ord("[") and at > short:
                close, short = _row_end(view, token.start())
                if close - token.start() < LONG:
                    continue
                rows.append(Row(view[token.start() : close]))
                parts += [bytes(view[begin : token.start()]), f'["{_MARK}{len(rows) - 1}"]'.encode()]
                left -= token.start() - begin
                depth -= 1
                begin = at = close
        elif mark in b"]}":
            depth -= 1
    if end < len(view):
        raise beyond(
            "json-text-bytes",
            limits["json-text-bytes"],
            "the JSON has more than {value} bytes that are not numbers; send tensors as binary",
        )
    parts.append(bytes(view[begin:]))
    return parts, rows


def _row_end(view: memoryview, begin: int) -> tuple[int, int]:
    """Return where the row that begins at `begin` ends, behind its last bracket that closes, and how far it was read.

    Where no bracket closes it, it ends where it begins.
    """
    read = begin
    while read < len(view):
        end = min(len(view), read + STEP)
        found = _ROW.match(view, read, end)
        assert found is not None  # it matches nothing as well
        read = found.end()
        if read < end:
            break
    at = read
    while at > begin:
        piece = bytes(view[max(begin, at - STEP) : at])
        close = piece.rfind(b"]")
        if close >= 0:
            return at - len(piece) + close + 1, read
        at -= len(piece)
    return begin, read


def _put_back(value: Any, rows: Sequence[Row]) -> Any:
    if isinstance(value, dict):
        return {key: _put_back(one, rows) for key, one in value.items()}
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], str) and value[0].startswith(_MARK):
            return rows[int(value[0].removeprefix(_MARK))]
        return [_put_back(one, rows) for one in value]
    return value


def numbers(
    row: Row, shape: Sequence[int], dtype: np.dtype[Any], fill: Callable[[list[Any]], npt.NDArray[Any]], where: str
) -> npt.NDArray[Any]:
    """Read a row of as many values as a shape has, in one list or in lists within lists as the shape says.

    Args:
        row: the text.
        shape: of the tensor; its size is known to be within limits.
        dtype: of the array.
        fill: makes such an array of values, and raises Problem where they are of another type.
        where: place in the request, for errors.

    Returns:
        (count,), of the dtype.

    Raises:
        Problem: 400: it is no JSON, its nesting is not the shape's, or there are more or fewer values.
    """
    array = np.empty(math.prod(shape), dtype)
    structure: list[bytes] = []
    at = 0
    for piece in _pieces(row.text):
        structure.append(piece.translate(None, _VALUES))
        if _is_beside(piece):
            raise Problem(400, "json", f"{where}.data is no JSON")
        text = piece.translate(_NO_BRACKETS).strip(b" \t\r\n").removesuffix(b",")
        if not text.strip(b", \t\r\n"):
            continue  # lists of nothing
        try:
            values = fill(orjson.loads(b"[" + text + b"]"))
        except ValueError:
            raise Problem(400, "json", f"{where}.data is no JSON") from None
        if at + len(values) > len(array):
            raise Problem(400, "shape", f"{where}.data has more values than the {len(array)} of its shape")
        array[at : at + len(values)] = values
        at += len(values)
    if at != len(array):
        raise Problem(400, "shape", f"{where}.data has {at} values, its shape has {len(array)}")
    brackets = b"".join(structure)
    if not _is_nested(brackets, (len(array),)) and not _is_nested(brackets, shape):
        raise Problem(400, "shape", f"{where}.data is nested otherwise than its shape says")
    return array


def _pieces(text: memoryview) -> Iterator[bytes]:
    """Yield a row in pieces that end behind a comma; a value is longer than `_PIECE` in none that is taken."""
    at = 0
    while at < len(text):
        piece = bytes(text[at : at + _PIECE])
        if at + _PIECE < len(text):
            comma = piece.rfind(b",")
            if comma < 0:
                raise _no_json()
            piece = piece[: comma + 1]
        at += len(piece)
        yield piece


def _is_beside(piece: bytes) -> bool:
    """Tell whether a value stands behind a list, or before one, without a comma."""
    if b"[" not in piece and b"]" not in piece:
        return False
    near = piece.translate(_AS_ONE, b" \t\r\n")
    return b"]1" in near or b"1[" in near


def _is_nested(structure: bytes, shape: Sequence[int]) -> bool:
    """Tell whether brackets and commas are those of lists of a shape."""
    length, text = 0, b""
    for size in reversed(shape):
        length = 2 + size * length + max(size - 1, 0)
    if length != len(structure):
        return False  # what a shape alone asks for may be long
    for size in reversed(shape):
        text = b"[" + ((text + b",") * size)[:-1] + b"]"
    return text == structure


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _no_json() -> Problem:
    return Problem(400, "json", "the request is not JSON in UTF-8")
