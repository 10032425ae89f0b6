"""From converted images to shards: what stands in which is planned from the images alone, and what is there is kept.

The plan depends on the rows of the Index and the PNGs, so that the same input and settings give the same files, byte
for byte, whatever happened on the way. A shard that is there under the right content stays, or is moved to its new
number; the others are written from what workers handed over and from shards that are to go.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from spicula import files
from spicula.convert import holdings, parquet, tfrecord, webdataset
from spicula.convert.formats import SPLIT_ORDER, Collection, Format, Shard, name_of, split_of
from spicula.convert.grouping import group
from spicula.convert.holdings import HOLDING, Holding, Piece
from spicula.convert.sample import Sample
from spicula.errors import SpiculaError
from spicula.index import SCHEMA
from spicula.progress import progress

FORMATS: dict[str, Format] = {"webdataset": webdataset, "tfrecord": tfrecord, "parquet": parquet}

#: Part of a shard's digest. To be raised with every change of code after which the same images give other shards.
ALGORITHM = 1

#: Shards written at a time: each holds up to a row group of Parquet in memory, about 250 MB at worst.
WRITERS = 2

#: What a shard takes besides its images, at most: the end of a tar, the schema and footer of Parquet.
SHARD_OVERHEAD_BYTES = 2**16
#: What a shard takes for an image besides its PNGs and its row as text, at most: headers, padding, names.
OVERHEAD_BYTES = 4096
MASK_OVERHEAD_BYTES = 2048

#: The new Index, and where each image is.
TABLE = "shards.parquet"
TABLE_SCHEMA = pa.schema(
    [
        *SCHEMA,  # of the Index; `path` is the name that the image would have as a file
        pa.field("shard", pa.string(), nullable=False),  # relative to the output folder
        pa.field("position", pa.int64(), nullable=False),  # in the shard, from 0
        pa.field("offset", pa.int64(), nullable=False),  # of the image's PNG in the shard, in bytes
        pa.field("bytes", pa.int64(), nullable=False),  # of the PNG, whose digest is `sha256`
        pa.field("shard_bytes", pa.int64(), nullable=False),
        pa.field("shard_sha256", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Planned:
    """A shard as it is to be.

    Attributes:
        name: digest of all that is in it.
        split: of its images.
        place: where it belongs, relative to the output folder.
        rows: of the new Index, in order.
        keys: of the images, in the same order.
    """

    name: str
    split: str
    place: str
    rows: Sequence[dict[str, Any]]
    keys: Sequence[str]


def pack(folder: Path, format_name: str, limit: int, rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> None:
    """Make the shards of an output folder what they are to be, and write what stands beside them.

    Args:
        folder: the output folder, where workers have handed over what is new.
        format_name: one of `FORMATS`.
        limit: largest size of a shard, in bytes, where it holds more than one image.
        rows: of the new Index, in its order.
        keys: of the same images, in the same order.

    Raises:
        SpiculaError: the folder cannot be written to, or something in it is damaged.
    """
    form = FORMATS[format_name]
    name = name_of(row["dataset"] for row in rows)
    there = holdings.scan(folder)
    plan = _plan(rows, keys, holdings.pieces(there), name=name, format_name=format_name, limit=limit)
    try:
        made = _make(folder, form, plan, there)
    except OSError as error:
        raise SpiculaError(f"cannot write in {folder}: {error.strerror or error}; check its rights") from error
    _describe(folder, form, name, plan, made)
    shutil.rmtree(folder / holdings.HELD, ignore_errors=True)  # empty, but for what killed conversions left


def _plan(
    rows: Sequence[dict[str, Any]],
    keys: Sequence[str],
    pieces: Mapping[str, Piece],
    *,
    name: str,
    format_name: str,
    limit: int,
) -> list[Planned]:
    plan = []
    for split in SPLIT_ORDER:
        chosen = [number for number, row in enumerate(rows) if split_of(row["split"]) == split]
        names = [rows[number]["image_id"] for number in chosen]
        sizes = [_size(rows[number], pieces[keys[number]]) for number in chosen]
        groups = group(names, sizes, limit - SHARD_OVERHEAD_BYTES)
        for number, part in enumerate(groups):
            its_rows = [rows[chosen[at]] for at in part]
            its_keys = [keys[chosen[at]] for at in part]
            digest = files.sha256_json([ALGORITHM, format_name, its_rows, its_keys])[:32]
            place = FORMATS[format_name].place(name, split, number, len(groups))
            plan.append(Planned(digest, split, place, its_rows, its_keys))
    return plan


def _size(row: dict[str, Any], piece: Piece) -> int:
    """Return the most that a shard takes for an image, in bytes."""
    masks = [int(mask["bytes"]) for mask in piece.record["masks"] if mask["bytes"] is not None]
    pngs = int(piece.record["bytes"]) + sum(masks)
    return pngs + len(str(row).encode()) + OVERHEAD_BYTES + MASK_OVERHEAD_BYTES * len(masks)


def _make(folder: Path, form: Format, plan: Sequence[Planned], there: Sequence[Holding]) -> list[Holding]:
    """Keep, move or write every shard of the plan, and return them in its order; delete what they no longer need."""
    place_of = {planned.name: planned.place for planned in plan}
    there = [_out_of_the_way(holding, place_of) for holding in there]
    there = [_at_its_place(holding, place_of) for holding in there]
    found = {holding.name: holding for holding in there if holding.name in place_of}
    pieces = holdings.pieces(there)
    missing = [planned for planned in plan if planned.name not in found]
    waiting = Counter(pieces[key].file for planned in missing for key in planned.keys)
    spare = {holding.file: holding for holding in there if holding.name not in place_of}
    for file in spare.keys() - waiting.keys():
        spare[file].remove()
    with ThreadPoolExecutor(WRITERS) as pool:
        try:
            written = pool.map(partial(_write, folder, form, pieces), missing)
            for planned, holding in zip(
                missing, progress(written, "writing shards", "shards", len(missing)), strict=True
            ):
                found[holding.name] = holding
                waiting.subtract(pieces[key].file for key in planned.keys)
                for file in {pieces[key].file for key in planned.keys}:
                    if file in spare and not waiting[file]:
                        spare[file].remove()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [found[planned.name] for planned in plan]


def _out_of_the_way(holding: Holding, place_of: Mapping[str, str]) -> Holding:
    is_wrong = holding.is_shard and not _is_in_place(holding, place_of.get(holding.name))
    return holding.put_aside() if is_wrong else holding


def _at_its_place(holding: Holding, place_of: Mapping[str, str]) -> Holding:
    """Return a shard that is wanted at its place, once all others are out of the way."""
    is_wrong = holding.name in place_of and not _is_in_place(holding, place_of[holding.name])
    return holding.put(place_of[holding.name]) if is_wrong else holding


def _is_in_place(holding: Holding, place: str | None) -> bool:
    return holding.place == place and (holding.folder / holding.place).exists()


def _write(folder: Path, form: Format, pieces: Mapping[str, Piece], planned: Planned) -> Holding:
    own = [pieces[key] for key in planned.keys]
    path = folder / planned.place
    with files.atomic_path(path) as temporary:
        with temporary.open("w+b") as stream:
            offsets = list(form.write(stream, _samples(planned.rows, own)))
        sha256, nbytes = files.sha256_file(temporary), temporary.stat().st_size
    records = [{name: piece.record[name] for name in HOLDING.names} for piece in own]
    table = holdings.table_of(records, offsets)
    holding = Holding(folder, planned.name, planned.place, nbytes, sha256, table)
    holding.save()
    return holding


def _samples(rows: Sequence[dict[str, Any]], pieces: Sequence[Piece]) -> Iterator[Sample]:
    for row, piece in zip(rows, pieces, strict=True):
        image, masks = piece.read()
        names = [mask["path"] for mask in piece.record["masks"] if mask["bytes"] is not None]
        yield Sample(row, image, dict(zip(names, masks, strict=True)), piece.record)


def _describe(folder: Path, form: Format, name: str, plan: Sequence[Planned], made: Sequence[Holding]) -> None:
    """Write the table of shards and what the format wants beside them."""
    shards, rows = [], []
    depths, channels, has_masks = {8}, {1}, False
    for planned, holding in zip(plan, made, strict=True):
        shards.append(Shard(planned.split, planned.place, len(planned.rows), holding.nbytes))
        for position, (row, record) in enumerate(zip(planned.rows, holding.table.to_pylist(), strict=True)):
            depths.add(8 if record["bits"] <= 8 else 16)
            channels.add(3 if record["photometric"] == "RGB" else 1)
            has_masks = has_masks or bool(record["mask_offsets"])
            place = {"shard": planned.place, "position": position, "shard_bytes": holding.nbytes}
            own = {"offset": record["offset"], "bytes": record["bytes"], "shard_sha256": holding.sha256}
            rows.append({**row, **place, **own})
    form.finish(folder, Collection(name, shards, max(depths), max(channels), has_masks))
    files.write_table(folder / TABLE, pa.Table.from_pylist(rows, schema=TABLE_SCHEMA))
