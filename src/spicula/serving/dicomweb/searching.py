"""QIDO-RS: what is asked as conditions on rows, and what is found as DICOM JSON (PS3.18 section 8.3.4 and 10.6)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spicula.serving.dicomweb import bulk
from spicula.serving.dicomweb.index import Condition, Index, Instance
from spicula.serving.dicomweb.reading import KEYS
from spicula.serving.problems import Problem

#: Objects of an answer at most; where there are more, a Warning says so.
MOST = 1000
_MOST_WHOLE = 100  # where whole headers are asked for
_MOST_VALUES = 1000  # UIDs in one list
_MOST_PARAMETERS = 64
_MOST_OFFSET = 10_000_000

#: What an answer always has where the object has it, PS3.18 tables 10.6.3-3 to 10.6.3-5.
_RETURNED: Mapping[str, Sequence[str]] = {
    "StudyInstanceUID": (
        *("00080005", "00080020", "00080030", "00080050", "00080090", "00080201", "00081030"),
        *("00100010", "00100020", "00100030", "00100040", "0020000D", "00200010"),
    ),
    "SeriesInstanceUID": (
        *("00080005", "00080021", "00080031", "00080060", "00080201", "0008103E", "0020000E", "00200011"),
        *("00400244", "00400245", "00400275", "0020000D"),
    ),
    "SOPInstanceUID": (
        *("00080005", "00080016", "00080018", "00080201", "00200013", "00280010", "00280011", "00280100"),
        *("00280008", "0020000D", "0020000E"),
    ),
}
_ABOVE: Mapping[str, Sequence[str]] = {
    "StudyInstanceUID": (),
    "SeriesInstanceUID": ("StudyInstanceUID",),
    "SOPInstanceUID": ("StudyInstanceUID", "SeriesInstanceUID"),
}
_BY_TAG = {tag: keyword for keyword, tag in KEYS.items()} | {"00080061": "ModalitiesInStudy"}
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_SPAN = re.compile(r"(\d{8})?-(\d{8})?|([\d.]+)?-([\d.]+)?")


@dataclass(frozen=True)
class Asked:
    """What a search asks.

    Attributes:
        level: keyword of the UID of what is searched: studies, series, or instances.
        conditions: on rows.
        included: tags that the answer has besides; None for all.
        offset: how many to pass over.
        count: how many to return.
        is_fuzzy: names are to match by sound, which they do not here.
    """

    level: str
    conditions: tuple[Condition, ...]
    included: tuple[str, ...] | None
    offset: int
    count: int
    is_fuzzy: bool


def parse(level: str, parameters: Iterable[tuple[str, str]], within: Mapping[str, str]) -> Asked:
    """Return what the query of an address asks.

    Args:
        level: see `Asked`.
        parameters: names and values, as they stand in the query, decoded.
        within: UIDs of the study and the series in the path, by keyword.

    Raises:
        Problem: 400, an attribute is not known or cannot be searched by, or a number is odd.
    """
    given = list(parameters)
    if len(given) > _MOST_PARAMETERS:
        raise Problem(400, "query", f"the query has more than {_MOST_PARAMETERS} parameters")
    conditions = [Condition(f"{keyword} = ?", (uid,)) for keyword, uid in within.items()]
    included: list[str] | None = []
    numbers = {"offset": 0, "limit": MOST}
    is_fuzzy = False
    for name, value in given:
        if name in numbers:
            numbers[name] = _number(name, value)
        elif name == "fuzzymatching":
            is_fuzzy = value == "true"
        elif name == "includefield":
            words = value.split(",")
            included = None if included is None or "all" in words else [*included, *map(_tag, words)]
        else:
            conditions += _conditions(name, value)
    wanted = None if included is None else tuple(included)
    count = min(numbers["limit"], _MOST_WHOLE if wanted is None else MOST)
    return Asked(level, tuple(conditions), wanted, numbers["offset"], count, is_fuzzy)


def search(index: Index, asked: Asked, base: str) -> tuple[list[dict[str, Any]], bool]:
    """Return what is found, as DICOM JSON, and whether there is more.

    Args:
        index: of the archive.
        asked: see `parse`.
        base: address of the service's DICOMweb, without a slash at its end.
    """
    rows = index.find(asked.level, asked.conditions, asked.offset, asked.count + 1)
    has_more = len(rows) > asked.count
    return [_shown(index, asked, instance, header, base) for instance, header in rows[: asked.count]], has_more


def address(base: str, instance: Instance, level: str) -> str:
    """Return where an object, its series or its study is retrieved."""
    path = f"{base}/studies/{instance.study}"
    if level != "StudyInstanceUID":
        path += f"/series/{instance.series}"
    return f"{path}/instances/{instance.instance}" if level == "SOPInstanceUID" else path


def _shown(index: Index, asked: Asked, instance: Instance, header: Mapping[str, Any], base: str) -> dict[str, Any]:
    found = dict(header) if asked.included is None else {}
    levels = [asked.level]
    # a search that names no study is told of the study as well
    if not any(one.sql == "StudyInstanceUID = ?" for one in asked.conditions):
        levels += _ABOVE[asked.level]
    for level in levels:
        found |= {tag: header[tag] for tag in _RETURNED[level] if tag in header}
        found |= _counted(index, level, instance)
    found |= {tag: header[tag] for tag in asked.included or () if tag in header}
    found["00081190"] = {"vr": "UR", "Value": [address(base, instance, asked.level)]}
    found["00080056"] = {"vr": "CS", "Value": ["ONLINE"]}
    return bulk.linked(dict(sorted(found.items())), address(base, instance, "SOPInstanceUID"))


def _counted(index: Index, level: str, instance: Instance) -> dict[str, Any]:
    if level == "SOPInstanceUID":
        return {"00083002": {"vr": "UI", "Value": [instance.syntax]}}
    uid = instance.study if level == "StudyInstanceUID" else instance.series
    series, instances, modalities = index.under(level, uid)
    if level == "SeriesInstanceUID":
        return {"00201209": {"vr": "IS", "Value": [instances]}}
    return {
        "00080061": {"vr": "CS", "Value": modalities},
        "00201206": {"vr": "IS", "Value": [series]},
        "00201208": {"vr": "IS", "Value": [instances]},
    }


def _conditions(name: str, value: str) -> list[Condition]:
    keyword = _BY_TAG.get(name.upper(), name)
    if keyword not in KEYS and keyword != "ModalitiesInStudy":
        raise Problem(400, "query", f"objects are searched by {', '.join(KEYS)} and ModalitiesInStudy, or their tags")
    if not value.strip("*"):
        return []  # universal matching
    if keyword == "ModalitiesInStudy":
        found = _matching("Modality", value)
        sql = f"StudyInstanceUID IN (SELECT StudyInstanceUID FROM instances WHERE {found.sql})"
        return [Condition(sql, found.values)]
    return [_matching(keyword, value)]


def _matching(keyword: str, value: str) -> Condition:
    """Return a condition; PS3.4 C.2.2.2: single value, list of UIDs, range, wild card."""
    if keyword.endswith("UID") or keyword == "Modality":
        values = tuple(value.replace("\\", ",").split(","))
        if len(values) > _MOST_VALUES:
            raise Problem(400, "query", f"a list has more than {_MOST_VALUES} values")
        return Condition(f"{keyword} IN ({', '.join('?' * len(values))})", values)
    if keyword.endswith(("Date", "Time")):
        if _SPAN.fullmatch(value) and "-" in value:
            first, _, last = value.partition("-")
            # a time may be as short as its hour
            return Condition(f"({keyword} != '' AND {keyword} >= ? AND {keyword} <= ?)", (first, f"{last or '9'}~"))
        if not value.replace(".", "").isdigit():
            raise Problem(400, "query", "dates are YYYYMMDD or YYYYMMDD-YYYYMMDD, times HHMMSS or a range of them")
    if "*" in value or "?" in value:
        escaped = re.sub(r"([%_\\])", r"\\\1", value).replace("*", "%").replace("?", "_")
        return Condition(f"{keyword} LIKE ? ESCAPE '\\'", (escaped,))
    if keyword.endswith("Name"):  # of people, in whatever letters
        return Condition(f"{keyword} = ? COLLATE NOCASE", (value,))
    return Condition(f"{keyword} = ?", (value,))


def _number(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > len(str(_MOST_OFFSET)):
        raise Problem(400, "query", f"{name} is a whole number")
    return min(int(value), _MOST_OFFSET)


def _tag(word: str) -> str:
    """Return the tag of an attribute that is named by its keyword or tag."""
    from pydicom.datadict import tag_for_keyword

    if _TAG.fullmatch(word):
        return word.upper()
    tag = tag_for_keyword(word)
    if tag is None:
        raise Problem(400, "query", "includefield names attributes by keyword or by tag, eight hexadecimal digits")
    return f"{tag:08X}"
