"""Shards as Hugging Face `datasets` opens them: Parquet with the image files in a column that is marked as images.

The columns of the Index, and before them `image` and `masks`: struct {bytes, path}, the files as they are. The schema's
metadata `huggingface` tell the library to decode them (features of kind Image); pyarrow, polars and others see bytes.
Names `data/SPLIT-00000-of-00003.parquet` are those from which the library knows the splits of a folder.
Source: huggingface.co/docs/hub/datasets-image ("Parquet format"), huggingface.co/docs/datasets/repository_structure.
"""

import json
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from spicula.convert.formats import Collection
from spicula.convert.sample import Sample
from spicula.errors import SpiculaError
from spicula.index import SCHEMA as INDEX_SCHEMA

#: Largest row group: readers hold one in memory. An image that is larger has a row group of its own.
GROUP_BYTES = 32 * 10**6
GROUP_ROWS = 1000

_FILE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_FEATURES = {"image": {"_type": "Image"}, "masks": {"_type": "List", "feature": {"_type": "Image"}}}
SCHEMA = pa.schema(
    [pa.field("image", _FILE), pa.field("masks", pa.list_(_FILE)), *INDEX_SCHEMA],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


def place(name: str, split: str, number: int, count: int) -> str:
    """Return where a shard belongs, relative to the output folder; see `spicula.convert.formats.Format`."""
    return f"data/{split}-{number:05d}-of-{count:05d}.parquet"


def write(stream: BinaryIO, samples: Iterable[Sample]) -> Iterator[list[int]]:
    """Write a Parquet file; see `spicula.convert.formats.Format`.

    PNGs stand in it as they are, not compressed once more, so that they can be read at their offsets as well.
    """
    columns = _leaves(SCHEMA)
    with pq.ParquetWriter(
        stream,
        SCHEMA,
        compression=dict.fromkeys(columns, "zstd"),
        use_dictionary=columns,
        write_statistics=columns,
    ) as writer:
        for group in _groups(samples):
            begin = stream.tell()
            writer.write(pa.Table.from_pylist([_row(sample) for sample in group], schema=SCHEMA))
            yield from _offsets(stream, begin, group)


def finish(folder: Path, collection: Collection) -> None:
    """Write nothing: names and schemas say it all; see `spicula.convert.formats.Format`."""


def _row(sample: Sample) -> dict[str, Any]:
    masks = [{"bytes": png, "path": path} for path, png in sample.masks.items()]
    return {"image": {"bytes": sample.image, "path": sample.row["path"]}, "masks": masks, **sample.row}


def _groups(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    group: list[Sample] = []
    nbytes = 0
    for sample in samples:
        size = len(sample.image) + sum(map(len, sample.masks.values()))
        if group and (nbytes + size > GROUP_BYTES or len(group) == GROUP_ROWS):
            yield group
            group, nbytes = [], 0
        group.append(sample)
        nbytes += size
    if group:
        yield group


def _offsets(stream: BinaryIO, begin: int, group: list[Sample]) -> Iterator[list[int]]:
    """Find the PNGs in a row group that was just written: images follow each other, and after them masks do."""
    end = stream.seek(0, 2)
    with mmap.mmap(stream.fileno(), end, access=mmap.ACCESS_READ) as data:
        at = begin
        found = []
        for png in (*(sample.image for sample in group), *(mask for s in group for mask in s.masks.values())):
            at = data.find(png, at)
            if at < 0:
                raise SpiculaError("Parquet did not store an image as it is; use another version of pyarrow")
            found.append(at)
            at += len(png)
    images, masks = iter(found), iter(found[len(group) :])
    for sample in group:
        yield [next(images), *(next(masks) for _ in sample.masks)]


def _leaves(schema: pa.Schema) -> list[str]:
    """Return the paths of all columns but those that hold files, as Parquet names them."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    columns = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [path for number in range(len(columns)) if not (path := columns.column(number).path).endswith(".bytes")]
