"""The Imaging Data Commons: series chosen from the index inside `idc-index`, without the network, and fetched checked.

The index is read by column and filtered while reading, which takes a fifth of the memory and a tenth of the time of
`idc_index.IDCClient`, and gives the same rows.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula.acquire import idc_bucket, manifest, records, series, sources
from spicula.acquire.transfer import Retry, Unreachable, patiently
from spicula.acquire.types import Item, Request
from spicula.errors import RejectedImageError, SpiculaError, UsageError
from spicula.headers import read_dicom

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = (
    "collection_id",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyDate",
    "StudyDescription",
    "SeriesDescription",
    "SeriesNumber",
    "Modality",
    "SOPClassUID",
    "sop_class_name",
    "Manufacturer",
    "source_DOI",
    "instanceCount",
    "license_short_name",
    "aws_bucket",
    "crdc_series_uuid",
    "series_size_MB",
)


def items(request: Request, collection: str) -> list[Item]:
    """Return the series of a collection that a request selects, in order of patient and series.

    The network is used for one thing: where something has to come from IDC, its service is asked once whether it
    answers, so that no network is one line and not one for every series.

    Raises:
        UsageError: no such collection, or nothing in it that the request selects; `idc-index` is not there.
        SpiculaError: IDC cannot be reached.
    """
    rows = select(request, collection)
    if not request.mirror:
        _look(rows, request)
    found = [_item(row, request) for row in rows]
    missing = sorted(set(_wanted(request)) - {row["SeriesInstanceUID"] for row in rows})
    return found + [_missing(uid, collection) for uid in missing]


def select(request: Request, collection: str) -> list[dict[str, Any]]:
    """Return the rows of IDC's index (`COLUMNS`) that a request selects, without the network.

    Raises:
        UsageError: no such collection, or nothing in it that the request selects; `idc-index` is not there.
    """
    table = _collection(collection)
    rows = sorted(table.to_pylist(), key=lambda row: (row["PatientID"], row["SeriesInstanceUID"]))
    rows = _of(rows, "Modality", request.modality, "--modality")
    rows = _of(rows, "license_short_name", request.licence, "--licence")
    if request.series_file:
        wanted = set(_wanted(request))
        rows = [row for row in rows if row["SeriesInstanceUID"] in wanted]
        if not rows:
            raise UsageError(f"{request.series_file}: none of its {len(wanted)} series is in IDC's {collection}")
    if request.patient_ids:
        rows = [row for row in rows if {row["PatientID"], sources.person(row["PatientID"])} & set(request.patient_ids)]
        if not rows:
            raise UsageError(f"--patient: no such patient in IDC's {collection}, or none with such series")
    if request.patients:
        first = set(sorted({sources.person(row["PatientID"]) for row in rows})[: request.patients])
        rows = [row for row in rows if sources.person(row["PatientID"]) in first]
    return rows


def _look(rows: list[dict[str, Any]], request: Request) -> None:
    """Ask for the first series that is not there yet, and complain if nobody answers."""
    row = next((row for row in rows if records.whole(request.to, row["SeriesInstanceUID"]) is None), None)
    if row is None:
        return
    try:
        patiently(lambda: idc_bucket.listing(_url(row), request.server or idc_bucket.ENDPOINT))
    except SpiculaError as error:
        if isinstance(error.__cause__, Unreachable):
            raise


def _of(rows: list[dict[str, Any]], column: str, value: str | None, option: str) -> list[dict[str, Any]]:
    if value is None:
        return rows
    chosen = [row for row in rows if row[column] == value]
    if not chosen:
        there = ", ".join(sorted({str(row[column]) for row in rows}))
        raise UsageError(f"{option} {value}: no such series; there are {there}")
    return chosen


def _wanted(request: Request) -> list[str]:
    return list(manifest.read(request.series_file).series) if request.series_file else []


def _collection(name: str) -> "pa.Table":
    """Return a collection's rows of the index; its name may be written as TCIA writes it (`CBIS-DDSM`)."""
    try:
        import idc_index_data
    except ImportError:
        raise UsageError("downloads from IDC need idc-index: pip install 'spicula[archives]'") from None
    import pyarrow.parquet as pq

    path = idc_index_data.IDC_INDEX_PARQUET_FILEPATH
    known_as = re.sub(r"\W+", "_", name.lower())
    table = pq.read_table(path, columns=list(COLUMNS), filters=[("collection_id", "==", known_as)])
    if not len(table):
        there = pq.read_table(path, columns=["collection_id"])["collection_id"].unique().to_pylist()
        close = difflib.get_close_matches(known_as, there, n=3, cutoff=0.5)
        hint = f"; close to it: {', '.join(close)}" if close else ""
        raise UsageError(f"IDC has no collection {name!r} among its {len(there)}{hint}")
    return table


def _item(row: Mapping[str, Any], request: Request) -> Item:
    facts = _facts(row)

    def fetch(folder: Path, tell: Callable[[int], None]) -> str:
        return _fetch(row, request.server or idc_bucket.ENDPOINT, folder, tell)

    return Item(row["SeriesInstanceUID"], series.place(facts), _bytes(row), fetch, facts)


def _missing(uid: str, collection: str) -> Item:
    def fetch(folder: Path, tell: Callable[[int], None]) -> str:
        raise SpiculaError(f"IDC's {collection} has no such series")

    return Item(uid, f"missing/{uid}", None, fetch)


def _url(row: Mapping[str, Any]) -> str:
    return f"s3://{row['aws_bucket']}/{row['crdc_series_uuid']}"


def _bytes(row: Mapping[str, Any]) -> int:
    """Return the size of a series in bytes: the index has the exact sum, divided by 1,000,000."""
    size: float = row["series_size_MB"] * 1e6
    return round(size)


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as `series.FACTS`; the index has no study id, and writes the names of collections in its own way."""
    by_idc = {origin.idc: origin.tcia for origin in sources.SOURCES.values() if origin.idc}
    return {
        "Series UID": row["SeriesInstanceUID"],
        "Collection": by_idc.get(row["collection_id"]) or row["collection_id"],
        "Data Description URI": f"https://doi.org/{row['source_DOI']}" if row["source_DOI"] else None,
        "Subject ID": row["PatientID"],
        "Study UID": row["StudyInstanceUID"],
        "Study Description": row["StudyDescription"],
        "Study Date": series.us_date(row["StudyDate"]),
        "Series Description": row["SeriesDescription"],
        "Series Number": row["SeriesNumber"],
        "Manufacturer": row["Manufacturer"],
        "Modality": row["Modality"],
        "SOP Class Name": row["sop_class_name"],
        "SOP Class UID": row["SOPClassUID"],
        "Number of Images": row["instanceCount"],
        "License Name": row["license_short_name"],
    }


def _fetch(row: Mapping[str, Any], endpoint: str, folder: Path, tell: Callable[[int], None]) -> str:
    url = _url(row)
    stored = idc_bucket.listing(url, endpoint)
    there = (len(stored), sum(one.bytes for one in stored))
    if there != (row["instanceCount"], _bytes(row)):
        raise SpiculaError(
            f"IDC's bucket has {there[0]} files of {there[1]} bytes where its index says {row['instanceCount']} of "
            f"{_bytes(row)}; a newer index may agree: pip install -U idc-index"
        )
    for path in folder.iterdir():
        if path.name not in {one.name for one in stored}:  # a name that s5cmd had not yet made final
            path.unlink()
    missing = [one for one in stored if not idc_bucket.is_whole(folder / one.name, one)]
    if missing:
        idc_bucket.copy(url, missing, folder, endpoint, tell)
    return _check(row["SeriesInstanceUID"], stored, folder)


def _check(uid: str, stored: list[idc_bucket.Stored], folder: Path) -> str:
    for one in stored:
        path = folder / one.name
        if not idc_bucket.is_whole(path, one):
            path.unlink(missing_ok=True)
            raise Retry("a file from IDC has the wrong size or MD5")
        try:
            header = read_dicom(path)
        except RejectedImageError as error:
            raise SpiculaError(f"IDC sent a file that is refused: {error}") from None
        if str(header.get("SeriesInstanceUID", "")) != uid:
            raise SpiculaError("IDC sent a file of another series")
    for path, name in series.image_names([folder / one.name for one in stored]).items():
        path.rename(folder / name)
    hashes = "md5" if all(one.md5 for one in stored) else "md5 where the bucket has it, size"
    return f"{hashes} of every file by the bucket's list; number and size by IDC's index; series UID in every file"
