"""What is known of files from the last time, so that unchanged ones are neither fetched nor parsed nor hashed again."""

import hashlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spicula import files, index, stores
from spicula.exams.intake.listing import Listing

#: What was found out about every file: one row an image, or one for a file without any. Paths are relative.
SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string()),  # "dicom", "image" (any other format), "list"
        pa.field("size", pa.int64()),
        pa.field("stamp", pa.int64()),  # see `Listing.stamps`; null where the file is to be read again next time
        pa.field("reasons", pa.list_(pa.string())),  # by the file itself: why it is not used, or what is odd about it
        pa.field("naming", pa.list_(pa.string())),  # the same, by names and exam lists
        pa.field("position", pa.int64()),  # of an image that has its exam from its name: lists have an order
        *(pa.field(column.name, column.type) for column in index.SCHEMA),
    ]
)

_VERSION_KEY, _VERSION = b"spicula.known", b"2"
_NAMING_KEY = b"spicula.naming"


class Known:
    """The facts of the last time. They are a cache: without them everything is read again.

    Args:
        path: of the Parquet file; None keeps them in memory alone. A missing or damaged file counts as empty.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows = SCHEMA.empty_table()
        self.naming = ""  # digest of the names and lists that the columns of images come from
        self._is_saved = True
        if path is not None and path.is_file():
            self._load(path)

    def _load(self, path: Path) -> None:
        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError):
            return
        metadata = table.schema.metadata or {}
        if metadata.get(_VERSION_KEY) == _VERSION and table.schema.equals(SCHEMA, check_metadata=False):
            self.rows = table.replace_schema_metadata(None)
            self.naming = metadata.get(_NAMING_KEY, b"").decode()

    def changed(self, listing: Listing) -> npt.NDArray[np.bool_]:
        """Return (N,): which files are new or have another size or stamp than those that are known."""
        if not self.rows.num_rows:
            return np.ones(len(listing.paths), dtype=np.bool_)
        places = pc.index_in(pa.array(listing.paths, pa.string()), value_set=self.rows["path"].combine_chunks())
        at = places.fill_null(0).to_numpy(zero_copy_only=False)
        same = places.is_valid().to_numpy(zero_copy_only=False)
        same &= self.rows["size"].to_numpy()[at] == listing.sizes
        same &= self.rows["stamp"].to_numpy()[at] == listing.stamps
        return np.asarray(~same)

    def replace(self, rows: pa.Table, naming: str) -> None:
        """Take these rows for all that is known, but for those without a stamp.

        Args:
            rows: of `SCHEMA`.
            naming: digest of the names and lists that the columns of images come from.
        """
        kept = rows.filter(rows["stamp"].is_valid())
        if naming != self.naming or not kept.equals(self.rows):
            self.rows, self.naming, self._is_saved = kept, naming, False

    def save(self) -> None:
        """Write the file, atomically, when something changed since it was read or written.

        Raises:
            SpiculaError: it cannot be written.
        """
        if self._is_saved or self.path is None:
            return
        metadata = {_VERSION_KEY: _VERSION, _NAMING_KEY: self.naming.encode()}
        files.write_table(self.path, self.rows.replace_schema_metadata(metadata))
        self._is_saved = True


def place(workspace: str, source: Path | str) -> Path:
    """Return where the facts of a source are kept: in a workspace that is a local folder, else in the user's cache.

    Args:
        workspace: a folder, or an address (s3://..., gs://...).
        source: the folder, address or Index that exams come from.
    """
    at = stores.place_of(source) if stores.is_remote(str(source)) else Path(source).absolute()
    name = hashlib.sha256(os.fsencode(at)).hexdigest()[:16]
    if not stores.is_remote(workspace):
        return Path(workspace) / "intake" / f"{name}.parquet"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "spicula" / "intake" / f"{name}.parquet"
