"""Finding out whether an ONNX model keeps data in other files, without the onnx package."""

from collections.abc import Iterator

from spicula.errors import SpiculaError

#: The ways from a ModelProto to every TensorProto, as message -> field number -> message (onnx.proto). A walk over them
#: finds external data without the onnx package, which the core install does not have.
ONNX_FIELDS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of TensorProto


def refers_outside(model: bytes, name: str) -> bool:
    """Tell whether any tensor of an ONNX model keeps its data in another file (or at a memory address).

    Args:
        model: the bytes of an ONNX file.
        name: of the file, for errors.

    Raises:
        SpiculaError: the bytes are not an ONNX model.
    """
    stack = [("ModelProto", memoryview(model))]
    try:
        while stack:
            message, data = stack.pop()
            for number, value in _fields(data):
                if message == "TensorProto":
                    if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                        return True
                elif number in ONNX_FIELDS[message]:
                    if not isinstance(value, memoryview):
                        raise ValueError
                    stack.append((ONNX_FIELDS[message][number], value))
    except (ValueError, IndexError):
        raise SpiculaError(f"bundle refused: {name} is not an ONNX model") from None
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield a protobuf message's field numbers and values: bytes of length-delimited fields, integers of varints."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        else:
            length = {1: 8, 5: 4}.get(wire)
            if wire == 2:
                length, at = _varint(data, at)
            if length is None or at + length > len(data):
                raise ValueError
            yield number, data[at : at + length]
            at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise ValueError
