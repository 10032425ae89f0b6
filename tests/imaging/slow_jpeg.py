"""A second decoder for sequential JPEG of 8 and 12 bits, grey, straight from ITU-T T.81, and slow."""

import struct

import numpy as np

# T.81 figure A.6: the order of coefficients within a block.
_ZIGZAG = sorted(((y, x) for y in range(8) for x in range(8)), key=lambda p: (sum(p), p[sum(p) % 2 == 0]))


def decode(frame: bytes) -> np.ndarray:
    """Return (H, W) int samples of a frame with one component and without restart intervals."""
    quantisers, tables, offset = {}, {}, 2
    while True:
        marker, length = struct.unpack_from(">HH", frame, offset)
        body = frame[offset + 4 : offset + 2 + length]
        offset += 2 + length
        if marker == 0xFFDB:
            quantisers |= _quantisers(body)
        elif marker == 0xFFC4:
            tables |= _huffman_tables(body)
        elif marker in (0xFFC0, 0xFFC1):
            precision, height, width, components = struct.unpack_from(">BHHB", body)
            assert components == 1
            quantiser = body[8]
        elif marker == 0xFFDA:
            dc, ac = tables[0, body[2] >> 4], tables[1, body[2] & 15]
            break
    bits = _Bits(frame[offset:])
    rows, columns = -(-height // 8), -(-width // 8)
    blocks = np.zeros((rows, columns, 8, 8))
    previous = 0
    for row, column in np.ndindex(rows, columns):
        previous += bits.extended(bits.symbol(dc))
        block = blocks[row, column]
        block[0, 0] = previous * quantisers[quantiser][0]
        position = 1
        while position < 64:  # T.81 F.2.2.2
            run, size = divmod(bits.symbol(ac), 16)
            if size == 0 and run != 15:
                break
            position += run
            if size:
                block[_ZIGZAG[position]] = bits.extended(size) * quantisers[quantiser][position]
            position += 1
    # T.81 A.3.3: the inverse cosine transform
    frequency, sample = np.mgrid[:8, :8]
    cosines = np.cos((2 * sample + 1) * frequency * np.pi / 16) * np.where(frequency, 0.5, np.sqrt(1 / 8))
    samples = cosines.T @ blocks @ cosines + 2 ** (precision - 1)
    samples = np.clip(np.rint(samples), 0, 2**precision - 1).astype(int)
    return samples.transpose(0, 2, 1, 3).reshape(8 * rows, 8 * columns)[:height, :width]


def _quantisers(body: bytes) -> dict[int, tuple[int, ...]]:
    found = {}
    while body:
        size = 2 if body[0] >> 4 else 1
        found[body[0] & 15] = struct.unpack_from(">64H" if size == 2 else ">64B", body, 1)
        body = body[1 + 64 * size :]
    return found


def _huffman_tables(body: bytes) -> dict[tuple[int, int], dict[tuple[int, int], int]]:
    """T.81 annex C: codes of each length count upwards."""
    found = {}
    while body:
        counts, code, at, table = body[1:17], 0, 17, {}
        for length, count in enumerate(counts, start=1):
            for _ in range(count):
                table[length, code] = body[at]
                code, at = code + 1, at + 1
            code *= 2
        found[body[0] >> 4, body[0] & 15] = table
        body = body[at:]
    return found


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data.replace(b"\xff\x00", b"\xff"))
        self._at = 0

    def _take(self, count: int) -> int:
        self._at += count
        return int(self._bits[self._at - count : self._at] or "0", 2)

    def symbol(self, table: dict[tuple[int, int], int]) -> int:
        code, length = 0, 0
        while (length, code) not in table:
            code, length = code * 2 + self._take(1), length + 1
            assert length <= 16
        return table[length, code]

    def extended(self, size: int) -> int:
        """T.81 F.2.2.1: a number of `size` bits, whose first one is its sign."""
        value = self._take(size) if size else 0
        return value if size == 0 or value >> (size - 1) else value - 2**size + 1
