"""What becomes of each attribute: the Basic Application Level Confidentiality Profile (DICOM PS3.15, table E.1-1).

The table itself is that of the package `dicom-anonymizer`, which follows the standard's editions. This module turns its
action codes into one of four, so that what was there and is required stays valid: where the table leaves a choice
between removing and replacing (X/Z, X/D, X/Z/D, Z/D), the attribute is kept with a value that says nothing.
"""

import functools
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pydicom.tag import BaseTag

#: Edition of the standard that the table is of.
EDITION = "2026c"

#: remove: the attribute goes. empty: it stays without a value. dummy: it stays with a value that says nothing. uid: its
#: UIDs are replaced, the same one by the same one everywhere. inside: a sequence stays, its items are treated alike.
Action = Literal["remove", "empty", "dummy", "uid", "inside"]

# Action codes of PS3.15 section E.3.1 table E.1-1a, as the package names its lists.
_ACTIONS: dict[str, Action] = {
    "D_TAGS": "dummy",
    "Z_TAGS": "empty",
    "X_TAGS": "remove",
    "U_TAGS": "uid",
    "Z_D_TAGS": "dummy",
    "X_Z_TAGS": "empty",
    "X_D_TAGS": "dummy",
    "X_Z_D_TAGS": "dummy",
    "X_Z_U_STAR_TAGS": "inside",
}

# What the table does not list goes as well where it can only be a name or a point in time (a retired attribute, or one
# of a later edition), and where it is bytes of unknown kind: a whole sequence can be among them (PS3.5 section 6.2.2).
_TELLING = ("PN", "DA", "TM", "DT", "UN")
# UIDs of anything but these are of something that one person, or one institution, has.
_KINDS_OF_UIDS = ("SOPClass", "TransferSyntax", "CodingScheme")
_OVERLAYS = range(0x6000, 0x6100)  # PS3.3 section C.9.2: repeating groups


def action_of(tag: "BaseTag", vr: str) -> Action | None:
    """Return what the profile does to an attribute; None: it is kept, and so are the items of a sequence, each treated.

    Args:
        tag: of the attribute, at any depth.
        vr: its value representation.
    """
    if tag.is_private or tag.group in _OVERLAYS:  # the table removes an overlay's data; what is left is of no use
        return "remove"
    exact, ranges = _table()
    listed = exact.get((tag.group, tag.element))
    if listed is None:
        listed = next((action for mask, value, action in ranges if int(tag) & mask == value), None)
    if listed is not None:
        return listed
    if vr in _TELLING:
        return "remove"
    if vr == "UI" and not _is_of_kinds(tag):
        return "uid"
    return "inside" if vr == "SQ" else None


def _is_of_kinds(tag: "BaseTag") -> bool:
    """Say whether the UIDs of an attribute are those of kinds of things, not of things."""
    from pydicom.datadict import keyword_for_tag

    return any(kind in keyword_for_tag(tag) for kind in _KINDS_OF_UIDS)


@functools.cache
def _table() -> tuple[dict[tuple[int, int], Action], list[tuple[int, int, Action]]]:
    """Return the action of each attribute, and of each range of attributes as (mask, masked tag, action)."""
    from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector

    lists = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    exact: dict[tuple[int, int], Action] = {}
    ranges: list[tuple[int, int, Action]] = []
    for name, action in _ACTIONS.items():
        for group, element, *masks in lists[name]:
            if masks:
                mask = masks[0] << 16 | masks[1]
                ranges.append((mask, (group << 16 | element) & mask, action))
            else:
                exact[group, element] = action
    return exact, ranges
