"""A quick writer of PNG: grey or RGB, 8 or 16 bits, always the same bytes for the same pixels.

W3C PNG, third edition: signature, IHDR, IDAT, IEND. A filter takes away what a pixel has in common with its neighbour.
What is left of a mammogram is noise, in which deflate finds nothing to repeat but the background: it is told to look
for runs of one byte alone, which is as small as what libraries make at their default level, and quicker
(`benchmarks/convert.py`). zlib-ng does it faster than zlib.
"""

import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2  # section 11.2.1, colour types
_SUB, _UP = 1, 2  # section 9.2: difference from the left, from above
# Of deflate. With this strategy all levels are one; the memory level 9 makes its blocks as long as they can be.
_LEVEL, _WINDOW_BITS, _MEMORY_LEVEL = 1, 15, 9
# Which filter suits an image is decided on every so many rows.
_SAMPLED_ROWS = 16


def encode(image: np.ndarray) -> bytes:
    """Return a PNG file.

    Args:
        image: (H, W) grey or (H, W, 3) RGB, uint8 or uint16, at least one pixel.

    Raises:
        ValueError: it has another shape or dtype.
    """
    is_image = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if not is_image or not image.size or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"PNG is written from uint8 or uint16, grey or RGB, not {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    channels = 3 if image.ndim == 3 else 1
    colour = _RGB if channels == 3 else _GREY
    header = struct.pack(">IIBBBBB", width, height, 8 * image.itemsize, colour, 0, 0, 0)
    packed = _deflated(_filtered(image, channels).data)
    return b"".join([_SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", packed), *_chunk(b"IEND", b"")])


def _deflated(data: memoryview) -> bytes:
    """Return data as a zlib stream (RFC 1950) of literals and runs."""
    from zlib_ng import zlib_ng

    packer = zlib_ng.compressobj(_LEVEL, zlib_ng.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib_ng.Z_RLE)
    return bytes(packer.compress(data) + packer.flush())


def _filtered(image: np.ndarray, channels: int) -> np.ndarray:
    """Return the bytes of all rows, each after the number of its filter: (H, 1 + W * channels * itemsize) uint8."""
    # section 7.1: samples of 16 bits have the high byte first
    rows = np.ascontiguousarray(image, image.dtype.newbyteorder(">")).view(np.uint8).reshape(image.shape[0], -1)
    step = channels * image.itemsize
    result = np.empty((rows.shape[0], 1 + rows.shape[1]), np.uint8)
    if _up_is_better(rows, step):
        result[:, 0] = _UP
        result[0, 1:] = rows[0]
        np.subtract(rows[1:], rows[:-1], out=result[1:, 1:])
    else:
        result[:, 0] = _SUB
        result[:, 1 : 1 + step] = rows[:, :step]
        np.subtract(rows[:, step:], rows[:, :-step], out=result[:, 1 + step :])
    return result


def _up_is_better(rows: np.ndarray, step: int) -> bool:
    """Compare the sums of absolute differences (section 12.8), bytes taken as signed."""
    some, above = rows[1::_SAMPLED_ROWS], rows[:-1:_SAMPLED_ROWS]
    up, sub = some - above, some[:, step:] - some[:, :-step]
    return _sum_of_magnitudes(up[:, step:]) <= _sum_of_magnitudes(sub)


def _sum_of_magnitudes(differences: np.ndarray) -> int:
    return int(np.minimum(differences, 0 - differences).sum(dtype=np.int64))  # modulo 256, so that 255 is -1


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return length, type, data and checksum (section 5.3)."""
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
