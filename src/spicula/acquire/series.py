"""Names and places of series, as users of the archive's own retriever know them.

    <collection>/<patient>/<study date>-<study id>-<study description>-<end of study uid>/
        <series number>-<series description>-<end of series uid>/1-1.dcm

These are the retriever's "descriptive" names (NBIA Data Retriever user's guide). What an archive says is never taken
into a path as it is: all but a few harmless characters are replaced, and lengths are bounded.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spicula.acquire.manifest import is_uid
from spicula.errors import RejectedImageError, SpiculaError
from spicula.headers import read_dicom

#: What is known of a series: the columns of `metadata.csv` that come from the archive, and two that its place needs.
FACTS = (
    "Series UID",
    "Collection",
    "3rd Party Analysis",
    "Data Description URI",
    "Subject ID",
    "Study UID",
    "Study Description",
    "Study Date",  # MM-DD-YYYY
    "Series Description",
    "Manufacturer",
    "Modality",
    "SOP Class Name",
    "SOP Class UID",
    "Number of Images",
    "Series Number",
    "Study ID",
    "License Name",
    "License URL",
)

#: Characters of a description that are kept, as the retriever keeps them.
MAX_DESCRIPTION = 54
_MAX_NAME = 64
_UNSAFE = re.compile(r"[^A-Za-z0-9 ._()+,=-]+")
# Names that Windows keeps for devices, with or without a suffix.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_LAST = 2**31


def safe_name(text: object, longest: int = _MAX_NAME) -> str:
    """Return a text as one component of a path: letters, digits and ` ._()+,=-`, all else replaced; NA where empty."""
    plain = unicodedata.normalize("NFKD", str(text if text is not None else ""))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    name = re.sub(r" {2,}|\.{2,}", lambda run: run[0][0], _UNSAFE.sub("_", plain))[:longest].strip(" .")
    return f"_{name}" if _RESERVED.fullmatch(name) else name or "NA"


def place(facts: Mapping[str, Any]) -> str:
    """Return where a series goes, relative to the target.

    Args:
        facts: `FACTS`, of which any but the UIDs may be missing.

    Raises:
        SpiculaError: a UID is not one.
    """
    study_uid, series_uid = str(facts.get("Study UID") or ""), str(facts.get("Series UID") or "")
    if not is_uid(series_uid) or (study_uid and not is_uid(study_uid)):
        raise SpiculaError("the archive names a series or a study by what is no UID")
    study = (
        safe_name(facts.get("Study Date")),
        safe_name(facts.get("Study ID")),
        safe_name(facts.get("Study Description"), MAX_DESCRIPTION),
        safe_name(study_uid[-5:]),
    )
    series = (
        safe_name(_number(facts.get("Series Number"))),
        safe_name(facts.get("Series Description"), MAX_DESCRIPTION),
        safe_name(series_uid[-5:]),
    )
    above = (safe_name(facts.get("Collection")), safe_name(facts.get("Subject ID")))
    return "/".join((*above, "-".join(study), "-".join(series)))


def us_date(text: object) -> str:
    """Return a date as the retriever writes it, MM-DD-YYYY, from YYYY-MM-DD (and a time) or YYYYMMDD; else as it is."""
    match = re.match(r"(\d{4})-?(\d{2})-?(\d{2})(?!\d)", str(text or ""))
    return f"{match[2]}-{match[3]}-{match[1]}" if match else str(text or "")


def image_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the names for the images of one series: 1-1.dcm, ... in order of InstanceNumber, padded to one length.

    Images of one number stand in order of their SOP instance UIDs, so that the names do not depend on the order in
    which the images came. What is no DICOM file comes last, in order of its name.
    """
    digits = len(str(len(paths)))
    return {path: f"1-{number:0{digits}d}.dcm" for number, path in enumerate(sorted(paths, key=_order), start=1)}


def _order(path: Path) -> tuple[int, str, str]:
    try:
        header = read_dicom(path)
    except RejectedImageError:
        return _LAST, "", path.name
    number = str(header.get("InstanceNumber", "")).strip()
    found = int(number) if re.fullmatch(r"[+-]?\d{1,12}", number) else _LAST
    return found, str(header.get("SOPInstanceUID", "")), path.name


def _number(value: object) -> str:
    """Return a series number as the retriever writes it: 1.000000."""
    text = str(value if value is not None else "").strip()
    return f"{float(text):.6f}" if re.fullmatch(r"-?\d{1,12}(?:\.\d{1,12})?", text) else text
