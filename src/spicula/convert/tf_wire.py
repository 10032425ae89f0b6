"""TensorFlow's two wire formats, without TensorFlow: TFRecord framing, and `tf.train.Example` as protocol buffers.

Sources: tensorflow/core/lib/io/record_writer.h and lib/hash/crc32c.h (framing), tensorflow/core/example/example.proto
and feature.proto (messages), protobuf.dev/programming-guides/encoding (wire types).
"""

import struct
from collections.abc import Mapping, Sequence

#: The value of one feature: a list of byte strings, of whole numbers (int64) or of floats (stored as float32).
Feature = Sequence[bytes] | Sequence[int] | Sequence[float]

#: Bytes of a record before its data: their length, and its checksum.
HEAD_BYTES = 12

_MASK_DELTA = 0xA282EAD8
_INT64 = 2**64
# Wire types: a varint, and a length followed by so many bytes.
_LENGTH_DELIMITED = 2


def masked_crc32c(data: bytes) -> int:
    """Return the masked CRC-32C of `data`: rotated right by 15 bits, plus a constant, modulo 2^32."""
    import google_crc32c

    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """Return `data` as one record of a TFRecord file: length, its checksum, data, its checksum; little-endian."""
    length = struct.pack("<Q", len(data))
    head = length + struct.pack("<I", masked_crc32c(length))
    return b"".join((head, data, struct.pack("<I", masked_crc32c(data))))


def example(features: Mapping[str, tuple[str, Feature]]) -> bytes:
    """Return a serialised `tf.train.Example`; the same features give the same bytes, whatever their order.

    Args:
        features: name -> (kind, values), kind being "bytes", "int64" or "float".
    """
    entries = (
        _field(1, _field(1, name.encode()) + _field(2, _feature(*features[name])))  # an entry of the map Features
        for name in sorted(features)
    )
    return _field(1, b"".join(entries))


def _feature(kind: str, values: Feature) -> bytes:
    if kind == "bytes":
        return _field(1, b"".join(_field(1, value) for value in values))  # type: ignore[arg-type]
    if kind == "float":
        packed = struct.pack(f"<{len(values)}f", *values)
        return _field(2, _field(1, packed) if values else b"")
    packed = b"".join(_varint(int(value) % _INT64) for value in values)
    return _field(3, _field(1, packed) if values else b"")


def _field(number: int, data: bytes) -> bytes:
    return b"".join((_varint(number << 3 | _LENGTH_DELIMITED), _varint(len(data)), data))


def _varint(value: int) -> bytes:
    """Return a number from 0 to 2^64 - 1 in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
