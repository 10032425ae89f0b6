"""The equations between stored and shown values: look-up tables and windows (DICOM PS3.3 C.11.1 and C.11.2).

Everything here is a function of one value. `imaging.display` decides which of them a file asks for.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spicula.errors import RejectedImageError

if TYPE_CHECKING:
    import pydicom

#: Defined terms of VOI LUT Function (PS3.3 C.11.2.1.3).
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class Table:
    """A look-up table of a Modality or VOI LUT Sequence.

    Attributes:
        first: the input value that its first entry belongs to.
        entries: (N,) int32, from 0 to 2**bits - 1.
        bits: of an entry, 8 to 16.
    """

    first: int
    entries: np.ndarray
    bits: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the entries that values are mapped to; those beyond its ends to its first or last (C.11.2.1.1).

        Values between whole numbers, which a rescale slope can make, are rounded half up.
        """
        positions = np.floor(values + 0.5) - self.first
        return np.asarray(self.entries[np.clip(positions, 0, len(self.entries) - 1).astype(np.int64)])


@dataclass(frozen=True)
class Window:
    """A window centre and width, and what they are parameters of.

    Attributes:
        center: Window Center, in units of modality values.
        width: Window Width; at least 1 for LINEAR, above 0 for the others.
        function: one of `FUNCTIONS`.
    """

    center: float
    width: float
    function: str = "LINEAR"

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return how bright modality values are, from 0 to 1: C.11.2.1.2.1 (linear), C.11.2.1.3.1 and C.11.2.1.3.2."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * ((values - self.center) / self.width), -700, 700)  # beyond, exp overflows
            return 1 / (1 + np.exp(exponent))
        is_exact = self.function == "LINEAR_EXACT"
        center = self.center if is_exact else self.center - 0.5
        width = self.width if is_exact else self.width - 1
        if width == 0:  # a threshold
            return (values > center).astype(np.float64)
        return np.clip((values - center) / width + 0.5, 0, 1)


def read_table(item: "pydicom.Dataset", name: str, is_signed: bool, is_little_endian: bool) -> Table:
    """Return the table of an item of a Modality or VOI LUT Sequence (PS3.3 C.11.1.1.1 and C.11.2.1.1).

    The number of entries 0 means 65,536. Entries of 8 bits stand in bytes or, as some programs write them, in words.

    Args:
        item: has LUT Descriptor and LUT Data.
        name: what messages call it.
        is_signed: whether its input values can be below 0: then so can the first of them.
        is_little_endian: of the file.

    Raises:
        RejectedImageError: incomplete, or its data are not what its descriptor says.
    """
    order = "<" if is_little_endian else ">"
    descriptor = _words(item.get("LUTDescriptor"), order)
    if len(descriptor) != 3:
        raise RejectedImageError(f"its {name} has a descriptor of {len(descriptor)} values; 3 are needed")
    count, first, bits = (int(value) for value in descriptor)
    count = count % 2**16 or 2**16
    if is_signed and first >= 2**15:  # written as unsigned
        first -= 2**16
    if not 8 <= bits <= 16:
        raise RejectedImageError(f"its {name} has entries of {bits} bits; 8 to 16 are read")
    entries = _entries(item.get("LUTData"), count, bits, order)
    if len(entries) != count:
        raise RejectedImageError(f"its {name} holds {len(entries)} entries where its descriptor says {count}")
    if int(entries.max()) > 2**bits - 1:
        raise RejectedImageError(f"its {name} holds entries beyond the {bits} bits that its descriptor says")
    return Table(first, entries, bits)


def _entries(data: Any, count: int, bits: int, order: str) -> np.ndarray:
    # Bytes are stored in words (VR OW), so that an odd number has one more.
    if isinstance(data, bytes) and bits == 8 and len(data) == count + count % 2:
        words = np.frombuffer(data, f"{order}u2") if len(data) % 2 == 0 else np.empty(0, "<u2")
        return words.astype("<u2").view(np.uint8)[:count].astype(np.int32)
    return _words(data, order).astype(np.int32)


def _words(value: Any, order: str) -> np.ndarray:
    """Return a value of VR US, SS or OW as whole numbers; of nothing, none."""
    if value is None:
        return np.empty(0, np.int64)
    if isinstance(value, bytes):
        return np.frombuffer(value[: len(value) // 2 * 2], f"{order}u2").astype(np.int64)
    return np.atleast_1d(np.asarray(value, np.int64))
