"""One tensor of a message: its name, datatype and shape, and its content, which is decoded when it is asked for."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spicula.serving.kserve import datatypes
from spicula.serving.kserve.datatypes import BYTES, DTYPES, Array
from spicula.serving.kserve.rows import Row
from spicula.serving.problems import Problem, beyond

#: Dimensions of a tensor; numpy has up to 64.
MAX_RANK = 16
#: Characters of a name or an id.
MAX_NAME = 256


@dataclass(frozen=True)
class Tensor:
    """A tensor of a message that was read.

    Attributes:
        name: as the message has it.
        datatype: a key of `datatypes.DTYPES`.
        shape: of any rank; its size is within limits.
        content: raw bytes, or JSON values.
        where: place in the message, for errors.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: memoryview | Row | list[Any] = field(repr=False)
    where: str

    def array(self) -> Array:
        """Return its elements; those of raw bytes are a view that cannot be written to, and may be unaligned.

        Raises:
            Problem: 400: the content is not of this datatype and shape.
        """
        if isinstance(self.content, memoryview):
            return datatypes.from_raw(self.datatype, self.shape, self.content, self.where)
        return datatypes.from_json(self.datatype, self.shape, self.content, self.where)


def read_all(items: Any, where: str, raw: memoryview, limits: Mapping[str, int]) -> tuple[Tensor, ...]:
    """Read a message's list of tensors, and take the raw bytes behind its JSON apart.

    Args:
        items: the value of `inputs` or `outputs`.
        where: that name.
        raw: everything behind the JSON.
        limits: tensor-bytes.

    Raises:
        Problem: 400 or 413, naming the place.
    """
    if not isinstance(items, list) or not items:
        raise Problem(400, "tensor", f"{where} is a list of at least one tensor")
    tensors: list[Tensor] = []
    at = total = 0
    for number, item in enumerate(items):
        tensor, size = _read(item, f"{where}[{number}]", raw[at:], limits)
        total += size
        if total > limits["tensor-bytes"]:
            raise beyond("tensor-bytes", limits["tensor-bytes"], "all tensors together have more than {value} bytes")
        at += len(tensor.content) if isinstance(tensor.content, memoryview) else 0
        tensors.append(tensor)
    if at != len(raw):
        raise Problem(400, "binary", f"{len(raw)} bytes follow the JSON, its tensors have {at}")
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise Problem(400, "tensor", f"{where} has two tensors of one name")
    return tuple(tensors)


def _read(item: Any, where: str, raw: memoryview, limits: Mapping[str, int]) -> tuple[Tensor, int]:
    """Return a tensor, and the bytes that it takes in memory, at least."""
    if not isinstance(item, dict):
        raise Problem(400, "tensor", f"{where} is an object with name, datatype, shape and data")
    name, datatype = text(item.get("name"), f"{where}.name"), item.get("datatype")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise Problem(400, "datatype", f"{where}.datatype is none of {', '.join(DTYPES)}")
    shape, most = _shape(item.get("shape"), f"{where}.shape"), limits["tensor-bytes"]
    # without the zeros: also what holds nothing must be something that numpy can make
    if math.prod(max(one, 1) for one in shape) * datatypes.size_of(datatype) > most:
        raise beyond("tensor-bytes", most, f"{where}.shape has more than {{value}} bytes")
    size = math.prod(shape) * datatypes.size_of(datatype)
    told = parameters(item.get("parameters"), f"{where}.parameters")
    if "shared_memory_region" in told:
        raise Problem(400, "tensor", f"{where} names shared memory, which this server does not have; send the data")
    length = told.get("binary_data_size")
    if ("data" in item) == (length is not None):
        raise Problem(400, "tensor", f"{where} has either data or parameters.binary_data_size")
    if length is None:
        data = item["data"]
        if not isinstance(data, list | Row):
            raise Problem(400, "tensor", f"{where}.data is a list")
        return Tensor(name, datatype, shape, data, where), size
    if type(length) is not int or length < 0:
        raise Problem(400, "binary", f"{where}.parameters.binary_data_size is a whole number of bytes")
    if length > len(raw):
        raise Problem(400, "binary", f"{where} has {length} bytes, {len(raw)} are left of the body")
    if datatype != BYTES and length != size:
        raise Problem(400, "shape", f"{where} has {length} bytes, its shape and datatype have {size}")
    return Tensor(name, datatype, shape, raw[:length], where), max(length, size)


def _shape(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(one) is int and one >= 0 for one in value):
        raise Problem(400, "shape", f"{where} is a list of whole numbers of at least 0")
    if len(value) > MAX_RANK:
        raise Problem(400, "shape", f"{where} has more than {MAX_RANK} dimensions")
    return tuple(value)


def text(value: Any, where: str) -> str:
    """Return a value that is to be a name or an id.

    Raises:
        Problem: 400: it is no text, or too long.
    """
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise Problem(400, "tensor", f"{where} is text of at most {MAX_NAME} characters")
    return value


def parameters(value: Any, where: str) -> dict[str, Any]:
    """Return a value that is to be the parameters of something; nothing at all is none.

    Raises:
        Problem: 400: it is no object of text, numbers and booleans.
    """
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(one, str | int | float) for one in value.values()):
        raise Problem(400, "parameters", f"{where} is an object whose values are text, numbers or booleans")
    return value


def write_all(
    tensors: Sequence[tuple[str, str, Array, bool]],
) -> tuple[list[bytes], list[memoryview]]:
    """Write tensors.

    Args:
        tensors: of each its name, datatype, array, and whether it is written as raw bytes.

    Returns:
        The JSON list of them, in parts, and the raw bytes that follow the JSON.

    Raises:
        ValueError: JSON has no number or no text for an element.
    """
    parts, raw = [b"["], []
    for number, (name, datatype, array, is_raw) in enumerate(tensors):
        head: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if is_raw:
            content = datatypes.to_raw(datatype, array)
            raw.append(content)
            head["parameters"] = {"binary_data_size": len(content)}
        parts.append((b"," if number else b"") + as_json(head)[:-1])
        parts += [] if is_raw else _data(datatype, array)
        parts.append(b"}")
    parts.append(b"]")
    return parts, raw


def _data(datatype: str, array: Array) -> Iterator[bytes]:
    yield b',"data":'
    yield from datatypes.to_json(datatype, array)


def as_json(value: Any) -> bytes:
    """Return JSON in as few bytes as it takes."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
