"""The datatypes of the protocol, each between raw bytes, JSON values and numpy.

Raw bytes are little endian and row by row. BF16, which numpy does not have, is float32 here: the upper half of its
bits. An element of BYTES is `bytes`, raw with its length before it as 4 bytes, and UTF-8 text in JSON.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from spicula.serving.kserve import rows
from spicula.serving.kserve.rows import Row
from spicula.serving.problems import Problem

Array = npt.NDArray[Any]
BYTES, BF16 = "BYTES", "BF16"
#: What arrays of each datatype are made of.
DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
        **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
        "FP16": np.dtype("<f2"),
        BF16: np.dtype("<f4"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
        BYTES: np.dtype(object),
    }
)
_LENGTH = struct.Struct("<I")
_NUMBERS_AT_ONCE = 2**14
#: Decimal digits that tell all values of a datatype apart (IEEE 754-2019, section 5.12.2); FP64 is written by Python.
_DIGITS = {"FP16": 5, BF16: 4, "FP32": 9}


def size_of(datatype: str) -> int:
    """Return the bytes of an element; of BYTES the fewest that it can have."""
    return {BYTES: _LENGTH.size, BF16: 2}.get(datatype, DTYPES[datatype].itemsize)


def from_raw(datatype: str, shape: Sequence[int], raw: memoryview, where: str) -> Array:
    """Return the array in raw bytes: a view of them where the datatype allows it.

    Args:
        datatype: a key of `DTYPES`.
        shape: of the tensor.
        raw: of as many bytes as the tensor has, except for BYTES.
        where: place in the message, for errors.

    Raises:
        Problem: 400: elements of BYTES do not fit into the bytes or the shape; a BOOL is neither 0 nor 1.
    """
    if datatype == BYTES:
        return _bytes_from_raw(shape, raw, where)
    if datatype == BF16:
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    if datatype == "BOOL" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
        raise Problem(400, "value", f"{where} has a BOOL that is neither 0 nor 1")
    return np.frombuffer(raw, DTYPES[datatype]).reshape(shape)


def to_raw(datatype: str, array: Array) -> memoryview:
    """Return an array's raw bytes: those that it has where the datatype allows it.

    Args:
        datatype: a key of `DTYPES`.
        array: of a dtype that fits into the datatype's; for BYTES of `bytes`.
    """
    if datatype == BYTES:
        return memoryview(b"".join(part for one in array.flat for part in (_LENGTH.pack(len(one)), one)))
    if datatype == BF16:
        return _rounded_to_bf16(array).view(np.uint8).data
    plain = np.ascontiguousarray(array, DTYPES[datatype])
    return plain.reshape(-1).view(np.uint8).data


def from_json(datatype: str, shape: Sequence[int], data: Row | list[Any], where: str) -> Array:
    """Return the array in JSON values, which are one list, or nested as the shape says.

    Args:
        datatype: a key of `DTYPES`.
        shape: of the tensor; its size is known to be within limits.
        data: as `rows.read` gives it.
        where: place in the message, for errors.

    Raises:
        Problem: 400: there are more or fewer values than the shape has, or one is not of the datatype.
    """

    def fill(values: list[Any]) -> Array:
        return _filled(datatype, values, where)

    if isinstance(data, Row):
        found = rows.numbers(data, shape, DTYPES[datatype], fill, where)
    else:
        found = fill(_flattened(data, shape, where))
    return found.reshape(shape)


def to_json(datatype: str, array: Array) -> Iterator[bytes]:
    """Yield the JSON list of an array's elements, row by row, in pieces.

    Raises:
        ValueError: JSON has no number (NaN, infinite) or no text (not UTF-8) for an element.
    """
    flat, digits = array.reshape(-1), _DIGITS.get(datatype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("JSON has no number for NaN and infinity")
    yield b"["
    for at in range(0, len(flat), _NUMBERS_AT_ONCE):
        values = flat[at : at + _NUMBERS_AT_ONCE].tolist()
        if digits:
            text = ",".join([f"%.{digits}g"] * len(values)) % tuple(values)
        else:
            values = [one.decode("utf-8") for one in values] if datatype == BYTES else values
            text = json.dumps(values, separators=(",", ":"))[1:-1]
        yield (b"," if at else b"") + text.encode()
    yield b"]"


def _bytes_from_raw(shape: Sequence[int], raw: memoryview, where: str) -> Array:
    found: list[bytes] = []
    at = 0
    while at + _LENGTH.size <= len(raw):
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + length > len(raw):
            break
        found.append(bytes(raw[at : at + length]))
        at += length
    else:
        if at == len(raw) and len(found) == math.prod(shape):
            return _objects(found).reshape(shape)
    raise Problem(400, "shape", f"{where}: its bytes are not as many elements with their lengths as its shape has")


def _objects(values: Sequence[Any]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _rounded_to_bf16(array: Array) -> npt.NDArray[np.uint16]:
    """Return the upper halves of float32, rounded to the nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(array, "<f4").reshape(-1).view("<u4")
    rounded = (bits.astype("<u8") + 0x7FFF + ((bits >> 16) & 1)) >> 16
    halves: npt.NDArray[np.uint16] = np.where(np.isnan(array.reshape(-1)), 0x7FC0, rounded).astype("<u2")
    return halves


def _flattened(data: list[Any], shape: Sequence[int], where: str) -> list[Any]:
    """Return the values of lists that are nested as a shape says, or of one list."""
    if not any(isinstance(one, list) for one in data):
        shape = (math.prod(shape),)
    values: list[Any] = [data]
    for size in shape:
        if not all(isinstance(one, list) and len(one) == size for one in values):
            raise Problem(
                400, "shape", f"{where}.data has another number of values, or another nesting, than its shape"
            )
        values = [inner for one in values for inner in one]
    return values


def _filled(datatype: str, values: list[Any], where: str) -> Array:
    """Return an array of JSON values."""
    dtype = DTYPES[datatype]
    kinds = set(map(type, values))
    if datatype == BYTES:
        allowed: set[type] = {str}
    elif dtype.kind == "b":
        allowed = {bool}
    else:
        allowed = {int, float} if dtype.kind == "f" else {int}
    if not kinds <= allowed:
        raise Problem(400, "value", f"{where}.data has a value that is no {datatype}")
    try:
        if datatype == BYTES:
            return _objects([one.encode("utf-8") for one in values])
        with np.errstate(over="ignore"):
            array = np.array(values, dtype)
        if datatype == BF16:
            array = from_raw(BF16, array.shape, to_raw(BF16, array), where)
    except (OverflowError, UnicodeEncodeError):
        raise Problem(400, "value", f"{where}.data has a value that {datatype} cannot hold") from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise Problem(400, "value", f"{where}.data has a value that {datatype} cannot hold")
    return array
