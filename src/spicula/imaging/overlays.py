"""Overlay planes of DICOM files (PS3.3 C.9.2): bits that lie over the image and are no part of its values."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pydicom

# Repeating groups 0x6000, 0x6002 ... 0x601E (PS3.5 section 7.6).
_GROUPS = range(0x6000, 0x6020, 2)
_BIT_POSITION, _DATA = 0x0102, 0x3000

#: What `are_embedded` asks for.
TAGS: list[str | int] = [group << 16 | element for group in _GROUPS for element in (_BIT_POSITION, _DATA)]


def are_embedded(dataset: "pydicom.Dataset", bits: int, allocated: int) -> bool:
    """Return whether a file keeps overlays in the unused bits of its pixels, as DICOM allowed until 2004.

    Such a group names a bit position above those stored and has no overlay data of its own.

    Args:
        dataset: a header with `TAGS`.
        bits: Bits Stored.
        allocated: Bits Allocated.
    """
    return any(
        group << 16 | _DATA not in dataset and bits <= int(dataset[group << 16 | _BIT_POSITION].value or 0) < allocated
        for group in _GROUPS
        if group << 16 | _BIT_POSITION in dataset
    )
