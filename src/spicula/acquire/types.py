"""What a download is: a request, the items that it comes down to, and the account of how each ended."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

#: The kinds of archives: TCIA's NBIA service, the Imaging Data Commons, and files on web servers.
Source = Literal["tcia", "idc", "web"]


@dataclass(frozen=True)
class Request:
    """What to fetch, from where, to where.

    Attributes:
        what: a dataset's name, the path of a .tcia manifest, `tcia:COLLECTION` or `idc:COLLECTION`.
        to: the folder for the archive.
        source: which archive; None: the dataset's own.
        patients: only the first so many, in order of their ids.
        series_file: only these series: a .tcia manifest, or series instance UIDs, one a line.
        patient_ids: only these patients; empty: all.
        modality: only series of this modality (DICOM PS3.3 C.7.3.1.1.1).
        licence: only series under this licence, as the archive writes it.
        jobs: how many downloads at a time.
        mirror: a copy that is asked first (`s3://`, `gs://`, `file:///`), or None.
        fill_mirror: whether what comes from upstream is put into the mirror.
        credentials: a file with user name and password, one a line; None: the keyring, where one is needed.
        server: the base URL of another server that speaks the archive's interface; None: the official one.
    """

    what: str
    to: Path
    source: Source | None = None
    patients: int | None = None
    series_file: Path | None = None
    patient_ids: tuple[str, ...] = ()
    modality: str | None = None
    licence: str | None = None
    jobs: int = 8
    mirror: str | None = None
    fill_mirror: bool = False
    credentials: Path | None = None
    server: str | None = None


@dataclass(frozen=True)
class Item:
    """The unit of a download, fetched and checked as one: a series, or a file.

    Attributes:
        key: names it for good and everywhere (a series instance UID, a file's name); also in the mirror.
        place: where it ends up, relative to `Request.to`: a folder for a series, a file's path for a file.
        bytes: how large it will be, where the archive says so.
        fetch: fetches it into an empty folder of its own, checking what the archive lets be checked, and returns the
            names of the checks made ("md5 of every file by the archive's list"). It calls its second argument with
            the number of bytes as they arrive. It may find in the folder what an attempt that was cut short left.
            When it returns, the folder holds what is to be kept and nothing else: for a file, one of `place`'s name.
            It raises `acquire.transfer.Retry` for what may pass, SpiculaError for what will not.
        facts: what the archive says of it, as a row of `metadata.csv`; empty where it says nothing.
        retries: how often `fetch` is called again after a Retry.
    """

    key: str
    place: str
    bytes: int | None
    fetch: Callable[[Path, Callable[[int], None]], str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 4
