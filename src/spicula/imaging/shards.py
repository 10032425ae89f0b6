"""The files of a Store: immutable shards, each an array of prepared images and a table that says which they are.

`NAME.npy` is written before `NAME.parquet`, both atomically; a shard is there when its table is. Names are digests of
the keys in a shard, so that no two shards of different content ever meet.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spicula import files
from spicula.imaging.geometry import Geometry
from spicula.imaging.preprocess import Prepared, Preprocess

#: Leftovers of killed builds are removed once they are this old; younger ones may belong to a build at work.
LEFTOVER_SECONDS = 3600.0

GEOMETRY_FIELDS = [
    pa.field(field.name, pa.bool_() if field.type is bool else pa.int32(), nullable=False) for field in fields(Geometry)
]
SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False), *GEOMETRY_FIELDS])


@dataclass(frozen=True)
class Task:
    """One image to be prepared.

    Attributes:
        key: what its pixels depend on, as a digest.
        path: the file.
        sha256: of the file, when it was indexed.
        frame: which image of the file.
        laterality: L, R or None, as a hint.
        bits: stored bits a sample, by the Index; None: not known.
    """

    key: str
    path: str
    sha256: str
    frame: int
    laterality: str | None
    bits: int | None = None


@dataclass(frozen=True)
class Place:
    """Where a prepared image is."""

    shard: Path
    position: int


def key_of(sha256: str, frame: int, laterality: str | None, preprocess: Preprocess) -> str:
    """Return a digest of all that the pixels of a prepared image depend on, but the `Preprocess`: a folder has one."""
    return files.sha256_json([sha256, frame, laterality if preprocess.orient else None])


def dtype_of(preprocess: Preprocess) -> np.dtype:
    """Return the dtype of prepared images: uint8 or uint16."""
    return np.dtype(np.uint8 if preprocess.bits == 8 else np.uint16)


def write_shard(folder: Path, keys: Sequence[str], images: Sequence[Prepared]) -> None:
    """Write prepared images as one shard.

    Raises:
        SpiculaError: the folder cannot be written to.
    """
    name = files.sha256_json(list(keys))[:32]
    with files.atomic_path(folder / f"{name}.npy") as path:
        np.save(path, np.stack([image.array for image in images]), allow_pickle=False)
    rows = [{"key": key, **image.geometry.to_row()} for key, image in zip(keys, images, strict=True)]
    files.write_table(folder / f"{name}.parquet", pa.Table.from_pylist(rows, schema=SCHEMA))


def scan(folder: Path, preprocess: Preprocess) -> tuple[dict[str, Place], pa.Table]:
    """Return where every prepared image of a folder is, and the tables of its shards as one, in the same order.

    Shards that do not fit together (damaged from outside) are passed over, so that their images are made again.
    """
    places: dict[str, Place] = {}
    tables = [SCHEMA.empty_table()]
    for path in sorted(folder.glob("*.parquet")):
        array = path.with_suffix(".npy")
        try:
            table = pq.read_table(path, schema=SCHEMA)
            shape, dtype = _header(array)
        except (OSError, ValueError, pa.ArrowInvalid):
            continue
        if (shape, dtype) != ((len(table), *preprocess.size, preprocess.channels), dtype_of(preprocess)):
            continue
        new = [position for position, key in enumerate(table["key"].to_pylist()) if key not in places]
        table = table.take(pa.array(new, pa.int64()))
        places.update(zip(table["key"].to_pylist(), (Place(array, position) for position in new), strict=True))
        tables.append(table)
    return places, pa.concat_tables(tables)


def open_shard(path: Path) -> np.ndarray:
    """Return a shard's images as a read-only memory map: (N, H, W, C)."""
    images: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    return images


def remove_leftovers(folder: Path) -> None:
    """Delete what killed builds left behind: temporary files, and arrays that never got their table."""
    oldest = time.time() - LEFTOVER_SECONDS
    lonely = [path for path in folder.glob("*.npy") if not path.with_suffix(".parquet").exists()]
    for path in {*folder.glob(".part-*"), *lonely}:
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except OSError:
            continue  # another build was quicker, or the folder is read-only: nothing that matters here


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype of a .npy file that has all of its bytes; mapping it checks that."""
    images = open_shard(path)
    return images.shape, images.dtype
