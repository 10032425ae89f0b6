"""The two messages of inference, a request and its answer, read and written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spicula.serving.kserve import HEADER_LENGTH, rows, tensors
from spicula.serving.kserve.datatypes import Array
from spicula.serving.kserve.rows import Buffer
from spicula.serving.kserve.tensors import Tensor
from spicula.serving.problems import Problem


@dataclass(frozen=True)
class Output:
    """An output that a request asks for.

    Attributes:
        name: of the output.
        is_raw: it is wanted as raw bytes; None: as the request says of all.
    """

    name: str
    is_raw: bool | None = None


@dataclass(frozen=True)
class Request:
    """A request of inference.

    Attributes:
        id: the client's, which the answer repeats; None: it gave none.
        inputs: at least one.
        outputs: those asked for; none: all.
        is_raw: outputs are wanted as raw bytes where they do not say otherwise.
    """

    id: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Output, ...] = ()
    is_raw: bool = False

    def wants_raw(self, name: str) -> bool:
        """Tell whether an output is wanted as raw bytes."""
        said = {one.name: one.is_raw for one in self.outputs}.get(name)
        return self.is_raw if said is None else said


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        model: name of the model.
        version: of the model; None: it has none.
        id: that of the request.
        outputs: at least one.
        parameters: what else the server says.
    """

    model: str
    version: str | None
    id: str | None
    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Message:
    """A body, and what its headers say of it.

    Attributes:
        parts: the body, in order.
        header_length: bytes of JSON before raw bytes; None: all of it is JSON.
    """

    parts: tuple[Buffer, ...]
    header_length: int | None

    @property
    def body(self) -> bytes:
        """The parts as one."""
        return b"".join(self.parts)

    @property
    def headers(self) -> dict[str, str]:
        """Content-Type, and where the JSON ends."""
        if self.header_length is None:
            return {"Content-Type": "application/json"}
        return {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(self.header_length)}


def read_request(body: Buffer, header_length: int | None, limits: Mapping[str, int]) -> Request:
    """Read a request.

    Args:
        body: decompressed.
        header_length: see `Message`.
        limits: those of the service: json-bytes, json-depth, json-text-bytes, tensor-bytes.

    Raises:
        Problem: 400 or 413, naming what is wrong, and where.
    """
    document, raw = _split(body, header_length, limits)
    told = tensors.parameters(document.get("parameters"), "parameters")
    return Request(
        _id(document),
        tensors.read_all(document.get("inputs"), "inputs", raw, limits),
        _outputs(document.get("outputs")),
        _is_raw(told, "binary_data_output", "parameters") or False,
    )


def write_request(
    inputs: Mapping[str, tuple[str, Array]], outputs: Sequence[str], *, is_raw: bool, id: str | None = None
) -> Message:
    """Write a request.

    Args:
        inputs: by name, datatype and array of each.
        outputs: names of those that are wanted; none: all.
        is_raw: inputs and outputs travel as raw bytes; else as JSON.
        id: for the answer to repeat.

    Raises:
        ValueError: JSON has no number or no text for an element.
    """
    document: dict[str, Any] = {} if id is None else {"id": id}
    if outputs:
        said = {"parameters": {"binary_data": True}} if is_raw else {}
        document["outputs"] = [{"name": name, **said} for name in outputs]
    elif is_raw:
        document["parameters"] = {"binary_data_output": True}
    written = tensors.write_all([(name, datatype, array, is_raw) for name, (datatype, array) in inputs.items()])
    return _joined(document, "inputs", *written)


def read_answer(body: Buffer, header_length: int | None, limits: Mapping[str, int]) -> Answer:
    """Read an answer.

    Args:
        body: decompressed.
        header_length: see `Message`.
        limits: as in `read_request`.

    Raises:
        Problem: 400 or 413, naming what is wrong, and where.
    """
    document, raw = _split(body, header_length, limits)
    version = document.get("model_version")
    return Answer(
        tensors.text(document.get("model_name"), "model_name"),
        None if version is None else tensors.text(version, "model_version"),
        _id(document),
        tensors.read_all(document.get("outputs"), "outputs", raw, limits),
        tensors.parameters(document.get("parameters"), "parameters"),
    )


def write_answer(
    model: str,
    version: str,
    outputs: Mapping[str, tuple[str, Array, bool]],
    *,
    id: str | None = None,
    parameters: Mapping[str, str | float | bool] | None = None,
) -> Message:
    """Write an answer.

    Args:
        model: name of the model.
        version: of the model.
        outputs: by name, of each the datatype, the array, and whether it travels as raw bytes.
        id: that of the request.
        parameters: what else is said.

    Raises:
        ValueError: JSON has no number or no text for an element.
    """
    document: dict[str, Any] = {"model_name": model, "model_version": version}
    if id is not None:
        document["id"] = id
    if parameters:
        document["parameters"] = dict(parameters)
    written = tensors.write_all([(name, *rest) for name, rest in outputs.items()])
    return _joined(document, "outputs", *written)


def _split(body: Buffer, length: int | None, limits: Mapping[str, int]) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON, read, and the raw bytes behind it."""
    view = memoryview(body)
    if length is not None and length > len(view):
        raise Problem(400, "binary", f"{HEADER_LENGTH} is {length}, the body has {len(view)} bytes")
    end = len(view) if length is None else length
    return rows.read(view[:end], limits), view[end:]


def _id(document: Mapping[str, Any]) -> str | None:
    return None if document.get("id") is None else tensors.text(document["id"], "id")


def _outputs(items: Any) -> tuple[Output, ...]:
    if items is None:
        return ()
    if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
        raise Problem(400, "tensor", "outputs is a list of objects with a name")
    found = []
    for number, one in enumerate(items):
        where = f"outputs[{number}]"
        told = tensors.parameters(one.get("parameters"), f"{where}.parameters")
        if "classification" in told or "shared_memory_region" in told:
            raise Problem(
                400, "parameters", f"{where} asks for classification or shared memory; tensors alone are answered"
            )
        is_raw = _is_raw(told, "binary_data", f"{where}.parameters")
        found.append(Output(tensors.text(one.get("name"), f"{where}.name"), is_raw))
    if len({one.name for one in found}) != len(found):
        raise Problem(400, "tensor", "outputs names one output twice")
    return tuple(found)


def _is_raw(told: Mapping[str, Any], name: str, where: str) -> bool | None:
    said = told.get(name)
    if said is not None and not isinstance(said, bool):
        raise Problem(400, "parameters", f"{where}.{name} is true or false")
    return said


def _joined(document: Mapping[str, Any], name: str, listed: list[bytes], raw: list[memoryview]) -> Message:
    head = tensors.as_json(document)[:-1] + (b"," if document else b"") + f'"{name}":'.encode()
    parts = (head, *listed, b"}")
    return Message((*parts, *raw), sum(map(len, parts)) if raw else None)
