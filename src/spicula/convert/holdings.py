"""Files that hold PNGs at known places, each with a table that says which: what workers hand over, and shards.

A worker writes batches (`held/NAME.bin`), in which PNGs stand one after another. Packing copies them into shards, in
which they stand among other things, and which lie in the output folder. Both have a table of the schema `HOLDING`
(`held/NAME.parquet`, `shards/NAME.parquet`), written after the file: a PNG is there when a table says so and the file
has its size. Nothing else is remembered, so that what a kill leaves behind can always be worked with.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from spicula import files
from spicula.convert.sample import RECORD, Sample
from spicula.errors import SpiculaError

#: Folders of the output folder: batches with their tables, and shards that are out of place; tables of shards.
HELD, SHARDS = ".spicula/held", ".spicula/shards"

#: Which files there are tables; names of temporary ones begin with a dot.
TABLES = "[0-9a-f]*.parquet"

HOLDING = pa.schema(
    [
        *RECORD,
        pa.field("offset", pa.int64(), nullable=False),  # of the image's PNG in the file, in bytes
        pa.field("mask_offsets", pa.list_(pa.int64()), nullable=False),  # of the masks that can be used, in order
    ]
)

# What a table's metadata say of the file.
_PLACE, _BYTES, _SHA256 = b"spicula.place", b"spicula.bytes", b"spicula.sha256"


@dataclass(frozen=True)
class Holding:
    """A file with PNGs in it.

    Attributes:
        folder: the output folder.
        name: digest of what is in it, and nothing else.
        place: where the file belongs, relative to the output folder.
        nbytes: its size.
        sha256: of the file, in hexadecimal; None for a batch.
        table: one row an image, of the schema `HOLDING`.
    """

    folder: Path
    name: str
    place: str
    nbytes: int
    sha256: str | None
    table: pa.Table

    @property
    def is_shard(self) -> bool:
        """Whether it is a shard, and not a batch."""
        return self.sha256 is not None

    @property
    def file(self) -> Path:
        """Where the file is: at its place, or, while shards change places, among what is held."""
        place = self.folder / self.place
        return place if place.exists() else self.aside

    @property
    def aside(self) -> Path:
        """Where a shard waits while its place is taken by another."""
        return self.folder / HELD / f"{self.name}.shard"

    @property
    def table_path(self) -> Path:
        """Where the table is."""
        return self.folder / (SHARDS if self.is_shard else HELD) / f"{self.name}.parquet"

    def save(self) -> None:
        """Write the table: from now on the file counts."""
        metadata = {_PLACE: self.place.encode(), _BYTES: str(self.nbytes).encode()}
        if self.sha256 is not None:
            metadata[_SHA256] = self.sha256.encode()
        files.write_table(self.table_path, self.table.replace_schema_metadata(metadata))

    def put_aside(self) -> "Holding":
        """Make room at a shard's place. A kill at any moment leaves the file to be found, here as in `put`."""
        self.aside.parent.mkdir(parents=True, exist_ok=True)
        self.file.rename(self.aside)
        moved = replace(self, place=str(self.aside.relative_to(self.folder).as_posix()))
        moved.save()
        return moved

    def put(self, place: str) -> "Holding":
        """Move a shard that was put aside to a place that belongs to no other."""
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # written by a conversion that was killed before it wrote the table
        moved = replace(self, place=place)
        moved.save()
        self.aside.rename(target)
        return moved

    def remove(self) -> None:
        """Delete the table and the file, in this order."""
        file = self.file
        self.table_path.unlink(missing_ok=True)
        file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Piece:
    """One converted image in a file.

    Attributes:
        file: the file.
        record: a row of `HOLDING`.
    """

    file: Path
    record: dict[str, Any]

    def read(self) -> tuple[bytes, list[bytes]]:
        """Return the PNG of the image, and those of its masks that can be used, in order.

        Raises:
            SpiculaError: the file is gone or damaged.
        """
        sizes = [mask["bytes"] for mask in self.record["masks"] if mask["bytes"] is not None]
        try:
            with self.file.open("rb") as stream:
                image = _part(stream, self.record["offset"], self.record["bytes"])
                masks = [_part(stream, *at) for at in zip(self.record["mask_offsets"], sizes, strict=True)]
        except OSError as error:
            raise SpiculaError(f"cannot read {self.file}: {error.strerror}; delete it and convert again") from error
        if hashlib.sha256(image).hexdigest() != self.record["sha256"]:
            raise SpiculaError(f"{self.file} was changed since it was written; delete it and convert again")
        return image, masks


def save_batch(folder: Path, samples: Sequence[Sample]) -> None:
    """Write converted images as one batch.

    Args:
        folder: the output folder.
        samples: at least one.

    Raises:
        SpiculaError: the folder cannot be written to.
    """
    name = files.sha256_json([sample.record["key"] for sample in samples])[:32]
    parts: list[bytes] = []
    offsets = []
    end = 0
    for sample in samples:
        row = []
        for part in (sample.image, *sample.masks.values()):
            row.append(end)
            parts.append(part)
            end += len(part)
        offsets.append(row)
    place = f"{HELD}/{name}.bin"
    files.write_bytes(folder / place, b"".join(parts))
    Holding(folder, name, place, end, None, table_of([sample.record for sample in samples], offsets)).save()


def table_of(records: Iterable[dict[str, Any]], offsets: Iterable[list[int]]) -> pa.Table:
    """Return a table of `HOLDING`.

    Args:
        records: a row of `RECORD` for each image.
        offsets: for each image, where its PNG begins, then where those of its masks do.
    """
    rows = [
        {**record, "offset": first, "mask_offsets": others}
        for record, (first, *others) in zip(records, offsets, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=HOLDING)


def scan(folder: Path) -> list[Holding]:
    """Return all batches and shards of an output folder that are there and whole; shards first."""
    found = []
    for path in [*sorted((folder / SHARDS).glob(TABLES)), *sorted((folder / HELD).glob(TABLES))]:
        try:
            table = pq.read_table(path, schema=HOLDING)
            metadata = pq.read_schema(path).metadata
            sha256 = metadata[_SHA256].decode() if _SHA256 in metadata else None
            holding = Holding(
                folder, path.stem, metadata[_PLACE].decode(), int(metadata[_BYTES]), sha256, table.cast(HOLDING)
            )
            if holding.file.stat().st_size == holding.nbytes:
                found.append(holding)
        except (OSError, ValueError, KeyError, pa.ArrowInvalid):
            continue  # damaged from outside, or of another version: its images are made again
    return found


def pieces(holdings: Iterable[Holding]) -> dict[str, Piece]:
    """Return every image by its key; where several files hold it, the first."""
    found: dict[str, Piece] = {}
    for holding in holdings:
        for record in holding.table.to_pylist():
            found.setdefault(record["key"], Piece(holding.file, record))
    return found


def _part(stream: BinaryIO, offset: int, count: int) -> bytes:
    stream.seek(offset)
    return stream.read(count)
