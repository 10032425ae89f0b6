"""Grey pixels as they stand in a DICOM file: cells of 8 or 16 bits, and what values they hold (PS3.5 section 8.1.1).

What depends on one pixel alone is computed once for each possible cell, at most 65,536 times, and looked up.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from spicula.errors import RejectedImageError


@dataclass(frozen=True)
class Cells:
    """The grey pixels of one frame, decompressed but not interpreted.

    Attributes:
        array: (H, W), uint8 or uint16; nobody else's, so it may be overwritten where it is writable.
        bits: Bits Stored; values are within 0 to 2**bits - 1, or half of that range below 0 when signed.
        width: how many bits of a cell hold the value, the sign included. A codestream can declare others than `bits`.
        shift: unused bits below the value.
        is_signed: whether values are two's complement.
        others_ignored: whether the unused bits may hold anything, such as an overlay, or have to be empty.
    """

    array: np.ndarray
    bits: int
    width: int
    shift: int = 0
    is_signed: bool = False
    others_ignored: bool = True

    @property
    def lowest(self) -> int:
        """The smallest value that `bits` can hold."""
        return -(1 << (self.bits - 1)) if self.is_signed else 0

    @property
    def highest(self) -> int:
        """The largest value that `bits` can hold."""
        return self.lowest + (1 << self.bits) - 1

    @property
    def is_plain(self) -> bool:
        """Whether a cell is its value, once unused bits above Bits Stored are masked out."""
        is_whole = self.width == (self.bits if self.others_ignored else 8 * self.array.dtype.itemsize)
        return is_whole and not self.is_signed and self.shift == 0

    def values(self) -> np.ndarray:
        """Return the stored value of every possible cell: (256,) or (65536,) int32."""
        values = np.arange(256**self.array.dtype.itemsize, dtype=np.int32) >> self.shift
        values &= 2**self.width - 1
        if self.is_signed:
            values -= (values >> (self.width - 1)) << self.width
        return values

    def checked(self) -> "Cells":
        """Return these cells if none holds more than `bits` tell.

        Raises:
            RejectedImageError: a value or a foreign bit lies beyond, and is not to be ignored; the value is said to
                stand in the upper bits, and the lower ones are not empty, so that the header can as well be wrong; or a
                codestream has fewer bits than the header, and nobody knows which of them is the sign.
        """
        if self.shift and int(np.bitwise_or.reduce(self.array, axis=None)) & (2**self.shift - 1):
            raise RejectedImageError(
                f"its high bit is {self.shift + self.bits - 1} with {self.bits} bits stored, but lower bits are in use"
            )
        if self.is_signed and self.width < self.bits and int(self.array.max()) >> (self.width - 1):
            raise RejectedImageError(
                f"its compressed frame has {self.width} bits a sample, its header says {self.bits} with a sign"
            )
        if int(self.array.max()) <= self.highest and self.is_plain:
            return self
        values, size = self.values(), 256**self.array.dtype.itemsize
        wrong = (values < self.lowest) | (values > self.highest)
        if not self.others_ignored:  # unused bits: none set, or the sign repeated
            cells = np.arange(size, dtype=np.int32)
            held = cells & (2**self.width - 1)
            repeated = (held - ((held >> (self.width - 1)) << self.width)) % size
            wrong |= (cells != held) & (cells != repeated)
        if wrong.any() and look_up(wrong.astype(np.uint8), self.array).any():
            raise RejectedImageError(f"it declares {self.bits} bits stored but holds values beyond them")
        return self


def look_up(table: np.ndarray, cells: np.ndarray, may_overwrite: bool = False) -> np.ndarray:
    """Return `table[cells]`.

    Args:
        table: (256,) or (65536,), uint8 or uint16.
        cells: (H, W), uint8 or uint16, as many values as the table has entries.
        may_overwrite: whether the result may take the place of `cells`, which saves most of the time.
    """
    out = cells if may_overwrite and cells.flags.writeable and cells.dtype == table.dtype else None
    return np.asarray(cv2.LUT(cells, table.reshape(1, -1), dst=out)).reshape(cells.shape)


def cells_in_use(cells: np.ndarray) -> np.ndarray:
    """Return which of the possible cells there are: (256,) or (65536,) bool."""
    size = 256**cells.dtype.itemsize
    return np.asarray(cv2.calcHist([cells], [0], None, [size], [0, size])).ravel() > 0


def as_unsigned(cells: Cells, is_inverted: bool) -> tuple[np.ndarray, int]:
    """Return the values from 0 on: signed ones raised by half their range; 1-bit values become 0 and 255.

    Args:
        cells: what stands in the file; its array may be overwritten.
        is_inverted: whether the lowest value is white (MONOCHROME1, PS3.3 C.7.6.3.1.2): then the range is turned over.

    Returns:
        (H, W), uint8 up to 8 bits and uint16 above, and the bits.

    Raises:
        RejectedImageError: values lie beyond the stored bits.
    """
    cells.checked()
    top = 2**cells.bits - 1
    dtype = np.uint8 if cells.bits <= 8 else np.uint16
    if not cells.is_plain:
        table = cells.values() - cells.lowest
        array = look_up((top - table if is_inverted else table).astype(dtype), cells.array, may_overwrite=True)
    else:
        array = cells.array
        if int(array.max()) > top:
            array = array & array.dtype.type(top)
        array = array.astype(dtype, copy=False)
        if is_inverted:
            array = np.subtract(dtype(top), array, out=array if array.flags.writeable else None)
    if cells.bits == 1:
        return array * np.uint8(255), 8
    return array, cells.bits
