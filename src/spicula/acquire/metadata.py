"""The table of all series in a target, `metadata.csv`, with the columns of the archive's own retriever."""

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spicula import files
from spicula.acquire import records
from spicula.acquire.records import Record
from spicula.errors import RejectedImageError
from spicula.headers import read_dicom
from spicula.progress import progress, show_bytes

#: The table, in the target.
TABLE = "metadata.csv"

#: Its columns: those of the NBIA Data Retriever, in its order, and the licence.
COLUMNS = (
    "Series UID",
    "Collection",
    "3rd Party Analysis",
    "Data Description URI",
    "Subject ID",
    "Study UID",
    "Study Description",
    "Study Date",
    "Series Description",
    "Manufacturer",
    "Modality",
    "SOP Class Name",
    "SOP Class UID",
    "Number of Images",
    "File Size",
    "File Location",
    "Download Timestamp",
    "License Name",
    "License URL",
)

_CLASS = ("SOP Class Name", "SOP Class UID")


def update(to: Path, series: Iterable[tuple[Mapping[str, Any], Record]]) -> None:
    """Write the table: its former rows, and one for every series given. Rows are in order of their places.

    Args:
        to: the target.
        series: what the archive says of each (`spicula.acquire.series.FACTS`), and its record.
    """
    rows = _read(to / TABLE)
    for facts, record in progress(list(series), "describing", "series"):
        rows[record.key] = _row(to, facts, record, rows.get(record.key, {}))
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(sorted(rows.values(), key=lambda row: (row["File Location"], row["Series UID"])))
    files.write_text(to / TABLE, text.getvalue())


def _read(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a table by series; an unreadable one has none."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [{column: row.get(column) or "" for column in COLUMNS} for row in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    return {row["Series UID"]: row for row in rows if row["Series UID"]}


def _row(to: Path, facts: Mapping[str, Any], record: Record, former: Mapping[str, str]) -> dict[str, str]:
    row = {column: _plain(facts.get(column)) for column in COLUMNS}
    if not row["SOP Class UID"]:
        row |= {column: former.get(column, "") for column in _CLASS}
    if not row["SOP Class UID"]:
        row["SOP Class UID"] = _sop_class(to / record.files[0].path)
    if not row["SOP Class Name"] and row["SOP Class UID"]:
        row["SOP Class Name"] = _class_name(row["SOP Class UID"])
    fetched = datetime.fromtimestamp(records.record_path(to, record.key).stat().st_mtime, UTC)
    return row | {
        "Series UID": record.key,
        "Number of Images": str(len(record.files)),
        "File Size": show_bytes(record.bytes),
        "File Location": f"./{record.place}",
        "Download Timestamp": fetched.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _plain(value: object) -> str:
    """Return a value in one line of printable characters."""
    text = str(value) if value is not None else ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _sop_class(path: Path) -> str:
    try:
        return str(read_dicom(path).get("SOPClassUID", ""))
    except (RejectedImageError, OSError):
        return ""


def _class_name(uid: str) -> str:
    from pydicom.uid import UID_dictionary

    return UID_dictionary[uid][0] if uid in UID_dictionary else ""
