"""The Index: one Arrow table, one row an image, one schema for every dataset. Validated whenever written or read.

What a dataset does not have is null, never invented.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spicula import files, stores
from spicula.errors import SpiculaError, UsageError

#: A lesion. Coordinates are in pixels of the stored image, origin at the outer corner of the top-left pixel, x to the
#: right and y down, so that pixel (row r, column c) covers [c, c + 1) by [r, r + 1).
LESION = pa.struct(
    [
        pa.field("kind", pa.string(), nullable=False),  # one of LESION_KINDS
        # box: x0 y0 x1 y1; circle: centre x, centre y, radius; polygon: x0 y0 x1 y1 ...; mask and unlocated: none
        pa.field("coordinates", pa.list_(pa.float64()), nullable=False),
        pa.field("mask_path", pa.string()),  # relative to the Index's root; any non-zero pixel is lesion
        pa.field("finding", pa.string()),  # mass, calcification, ...: the dataset's own word
        pa.field("pathology", pa.string()),  # benign or malignant
        pa.field("birads", pa.string()),  # of this lesion, as in the column of that name
    ]
)

SCHEMA = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),  # unique within the Index
        pa.field("patient_id", pa.string()),
        pa.field("exam_id", pa.string()),
        pa.field("path", pa.string(), nullable=False),  # relative to the root, with forward slashes
        pa.field("frame", pa.int32(), nullable=False),  # 0 where a file holds one image
        pa.field("modality", pa.string()),  # DICOM PS3.3 C.7.3.1.1.1 (MG, SM, ...)
        pa.field("laterality", pa.string()),  # L or R
        pa.field("view", pa.string()),  # DICOM view position: CC, MLO, ...
        pa.field("label", pa.string()),  # benign, malignant, normal, or the dataset's classes
        pa.field("target", pa.int8()),  # 1: what a classifier is to find; 0: not; null: not to be used
        pa.field("birads", pa.string()),  # 0 to 6, 4A, 4B, 4C
        pa.field("density", pa.string()),  # A to D, or the dataset's own scale
        pa.field("subtype", pa.string()),
        pa.field("magnification", pa.float32()),  # histology: objective, 40 is 40x
        pa.field("age", pa.float32()),  # years
        pa.field("split", pa.string()),  # one of SPLITS
        pa.field("fold", pa.int16()),  # 0 to k - 1: the fold in which the image is a test image
        pa.field("lesions", pa.list_(LESION), nullable=False),
        # what sets an image apart from a standard view for presentation: each one of FLAGS
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("bits", pa.int16()),  # stored bits a sample
        pa.field("photometric", pa.string()),  # DICOM PS3.3 C.7.6.3.1.2: MONOCHROME1, MONOCHROME2, RGB, ...
        pa.field("pixel_spacing_mm", pa.float32()),  # distance between neighbouring rows, at the detector or film
        pa.field("manufacturer", pa.string()),
        pa.field("model", pa.string()),
        pa.field("source", pa.string()),  # where the archive is to be had
        pa.field("sha256", pa.string()),  # of the file
    ]
)

#: Files that could not be used, and why.
REJECTED = pa.schema([pa.field("path", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)])

SPLITS = ("train", "val", "test")
LATERALITIES = ("L", "R")
#: What `flags` can hold: how an image was taken or made (DICOM PS3.3 C.8.11.7), and what it carries besides the breast.
FLAGS = (
    "for-processing",  # raw detector values, not made for reading (Presentation Intent Type)
    "spot-compression",
    "magnification",
    "implant",  # an implant is in the image
    "implant-displaced",  # Eklund view: the implant is pushed back
    "other-modifier",  # another view modifier: cleavage, rolled, tangential, ...
    "tomosynthesis-slice",
    "synthetic-2d",  # computed from tomosynthesis
    "specimen",
    "partial-view",
    "burned-in-annotation",  # the header says so
    "overlay",  # the file carries an overlay plane, which is not part of the pixels
    "mirrored",  # stored as its mirror image: a left breast points to the left, a right one to the right
)
LESION_KINDS = ("box", "circle", "polygon", "mask", "unlocated")
_COORDINATES = {"box": 4, "circle": 3, "mask": 0, "unlocated": 0}

_ROOT_KEY = b"spicula.root"
_VERSION_KEY = b"spicula.index"
_VERSION = b"2"


def from_rows(rows: Iterable[Mapping[str, Any]], root: Path) -> pa.Table:
    """Build an Index from dictionaries; a column that a row does not name is null (`frame` 0, lists empty).

    Raises:
        SpiculaError: a row breaks the schema; the message names the image and the value.
    """
    full = []
    for row in rows:
        unknown = set(row) - set(SCHEMA.names)
        if unknown:
            raise SpiculaError(
                f"the Index has no column {', '.join(sorted(unknown))}; it has {', '.join(SCHEMA.names)}"
            )
        full.append({"frame": 0, "lesions": [], "flags": [], **row})
    try:
        table = pa.Table.from_pylist(full, schema=SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise SpiculaError(f"a value does not fit the Index: {error}") from error
    return validate(with_root(table, root))


def with_root(table: pa.Table, root: Path | str) -> pa.Table:
    """Return the Index with `root` as the folder, or the address in an object store, that its paths are relative to."""
    place = str(root) if stores.is_remote(str(root)) else str(Path(root).absolute())
    return table.replace_schema_metadata({_ROOT_KEY: place.encode(), _VERSION_KEY: _VERSION})


def place_of(table: pa.Table) -> str:
    """Return the folder, or the address in an object store, that the Index's paths are relative to."""
    return str((table.schema.metadata or {})[_ROOT_KEY].decode())


def root_of(table: pa.Table) -> Path:
    """Return the folder that the Index's paths are relative to.

    Raises:
        UsageError: they are relative to an address.
    """
    place = place_of(table)
    if stores.is_remote(place):
        raise UsageError(
            f"the images of this Index are in {place}, where only spicula exams reads them; copy them to a disk, and "
            "make an Index of the copy"
        )
    return Path(place)


def image_paths(table: pa.Table) -> list[Path]:
    """Return each row's file, as an absolute path."""
    root = root_of(table)
    return [root / path for path in table["path"].to_pylist()]


def write(path: Path, table: pa.Table) -> None:
    """Validate an Index and write it as Parquet, atomically."""
    files.write_table(path, validate(table))


def read(path: Path, root: Path | None = None) -> pa.Table:
    """Read an Index and validate it.

    Args:
        path: the Parquet file.
        root: where the images are now, when they were moved since it was written.

    Raises:
        UsageError: there is no such file.
        SpiculaError: it is not an Index.
    """
    if not Path(path).is_file():
        raise UsageError(f"no Index at {path}; make one with: spicula index DATASET --from DIR --to {path}")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SpiculaError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from error
    metadata = table.schema.metadata or {}
    if _ROOT_KEY not in metadata:
        raise SpiculaError(f"{path} is a Parquet file but not an Index; make one with: spicula index")
    if metadata.get(_VERSION_KEY) != _VERSION:
        raise SpiculaError(f"{path} is an Index of another version of Spicula; make it again with: spicula index")
    return validate(with_root(table, root if root is not None else place_of(table)))


def digest(table: pa.Table) -> str:
    """Return a SHA-256 over the content of an Index: rows in order of image_id, whatever its root and row order."""
    rows = table.sort_by("image_id").to_pylist()
    for row in rows:
        for name, value in row.items():
            if isinstance(value, float):
                row[name] = float(np.float32(value))
    return files.sha256_json(rows)


def validate(table: pa.Table) -> pa.Table:
    """Return the table itself when it is a well-formed Index.

    Raises:
        SpiculaError: columns, types or values are not those of the schema; the first offending image is named.
    """
    _check_columns(table)
    _check_nulls(table)
    _check_unique(table)
    _check_values(table)
    _check_flags(table)
    _check_lesions(table)
    return table


def _check_columns(table: pa.Table) -> None:
    if table.schema.names == SCHEMA.names and table.schema.equals(SCHEMA, check_metadata=False):
        return
    missing = [name for name in SCHEMA.names if name not in table.schema.names]
    extra = [name for name in table.schema.names if name not in SCHEMA.names]
    wrong = [
        f"{f.name} is {table.schema.field(f.name).type}, not {f.type}"
        for f in SCHEMA
        if f.name in table.schema.names and table.schema.field(f.name).type != f.type
    ]
    problems = [f"missing {name}" for name in missing] + [f"unknown {name}" for name in extra] + wrong
    raise SpiculaError(f"not an Index: {'; '.join(problems) or 'columns in another order'}")


def _check_nulls(table: pa.Table) -> None:
    for field in SCHEMA:
        if not field.nullable and table[field.name].null_count:
            raise SpiculaError(f"not an Index: {table[field.name].null_count} rows have no {field.name}")


def _check_unique(table: pa.Table) -> None:
    seen: set[str] = set()
    for image_id in table["image_id"].to_pylist():
        if image_id in seen:
            raise SpiculaError(f"not an Index: two rows have the image_id {image_id}")
        seen.add(image_id)


def _check_values(table: pa.Table) -> None:
    allowed = {"laterality": LATERALITIES, "split": SPLITS, "target": (0, 1)}
    for column, values in allowed.items():
        _first_bad(table, column, lambda value, values=values: value not in values, f"one of {values}")
    _first_bad(table, "path", lambda value: value.startswith("/") or ".." in value.split("/"), "a path below the root")
    _first_bad(table, "sha256", lambda value: not re.fullmatch(r"[0-9a-f]{64}", value), "64 hexadecimal digits")
    for column in ("width", "height", "bits"):
        _first_bad(table, column, lambda value: value < 1, "at least 1")
    for column in ("frame", "fold"):
        _first_bad(table, column, lambda value: value < 0, "at least 0")
    for column in ("pixel_spacing_mm", "magnification"):
        _first_bad(table, column, lambda value: not value > 0, "above 0")


def _first_bad(table: pa.Table, column: str, is_bad: Any, wanted: str) -> None:
    for row, value in enumerate(table[column].to_pylist()):
        if value is not None and is_bad(value):
            image = table["image_id"][row].as_py()
            raise SpiculaError(f"not an Index: image {image} has {column} {value!r}, which is not {wanted}")


def _check_flags(table: pa.Table) -> None:
    _first_bad(table, "flags", lambda flags: not set(flags) <= set(FLAGS), f"made of {FLAGS}")


def _check_lesions(table: pa.Table) -> None:
    for row, lesions in enumerate(table["lesions"].to_pylist()):
        for lesion in lesions:
            problem = _lesion_problem(lesion)
            if problem:
                raise SpiculaError(f"not an Index: image {table['image_id'][row].as_py()} has a lesion {problem}")


def _lesion_problem(lesion: Mapping[str, Any]) -> str | None:
    kind, coordinates = lesion["kind"], lesion["coordinates"]
    if kind not in LESION_KINDS:
        return f"of kind {kind!r}, which is not one of {LESION_KINDS}"
    if not np.isfinite(coordinates).all():
        return f"with coordinates {coordinates}, which are not all finite"
    return _shape_problem(kind, coordinates) or ("that is a mask without a mask_path" if _lacks_mask(lesion) else None)


def _lacks_mask(lesion: Mapping[str, Any]) -> bool:
    return lesion["kind"] == "mask" and not lesion["mask_path"]


def _shape_problem(kind: str, coordinates: list[float]) -> str | None:
    count = len(coordinates)
    if kind == "polygon":
        return "that is a polygon of under three points" if count < 6 or count % 2 else None
    if count != _COORDINATES[kind]:
        return f"that is a {kind} with {count} coordinates, not {_COORDINATES[kind]}"
    if kind == "box" and not (coordinates[0] < coordinates[2] and coordinates[1] < coordinates[3]):
        return f"whose box {coordinates} is empty"
    if kind == "circle" and not coordinates[2] > 0:
        return f"whose radius {coordinates[2]} is not above 0"
    return None
