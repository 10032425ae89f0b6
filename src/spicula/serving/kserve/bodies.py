"""The body of a request, read as it arrives; the guard has decompressed and counted it."""

from collections.abc import AsyncIterator, Mapping

from spicula.serving.kserve import HEADER_LENGTH
from spicula.serving.problems import Problem, beyond

#: Tensors begin at a multiple of it in memory, as arrays of numpy do.
_ALIGNED = 16


async def read(stream: AsyncIterator[bytes], header_length: int | None, limits: Mapping[str, int]) -> memoryview:
    """Read the body of a request; its raw bytes are aligned, so that they can be a model's input as they are.

    Args:
        stream: the body, decompressed.
        header_length: see `length_of`.
        limits: those of the service: json-bytes, tensor-bytes.

    Raises:
        Problem: 413: it is longer than any request is.
    """
    before = header_length or 0
    buffer = bytearray(-before % _ALIGNED)
    start = len(buffer)
    async for chunk in stream:
        buffer += chunk
        size = len(buffer) - start
        if size > limits["json-bytes"] and (header_length is None or before > limits["json-bytes"]):
            raise beyond("json-bytes", limits["json-bytes"], "the JSON has more than {value} bytes")
        if header_length is not None and size > before + limits["tensor-bytes"]:
            raise beyond(
                "tensor-bytes", limits["tensor-bytes"], "the tensors behind the JSON have more than {value} bytes"
            )
    return memoryview(buffer)[start:]


def length_of(text: str | None) -> int | None:
    """Return what the header Inference-Header-Content-Length says: how much of the body is JSON; None: all of it.

    Raises:
        Problem: 400: it is no number of bytes.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise Problem(400, "binary", f"{HEADER_LENGTH} is a whole number of bytes")
    return int(text)
