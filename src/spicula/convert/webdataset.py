"""Shards as WebDataset reads them: tar archives in which the files of an image share a name and stand side by side.

KEY.png, KEY.json (the row of the Index), KEY.cls (the target: 0, 1, or -1 where it is unknown), and KEY.mask0.png,
KEY.mask1.png, ... for the masks, in the order in which the row's lesions first name them.
Source: github.com/webdataset/webdataset ("The WebDataset format"); tar: POSIX.1-1988 (ustar).
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from spicula.convert.formats import Collection, key_of
from spicula.convert.sample import Sample


def place(name: str, split: str, number: int, count: int) -> str:
    """Return where a shard belongs, relative to the output folder; see `spicula.convert.formats.Format`."""
    return f"{name}-{split}-{number:06d}.tar"


def write(stream: BinaryIO, samples: Iterable[Sample]) -> Iterator[list[int]]:
    """Write a tar archive without owners and times; see `spicula.convert.formats.Format`."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            key = key_of(sample.row["image_id"])
            target = -1 if sample.row["target"] is None else sample.row["target"]
            offsets = [_add(tar, f"{key}.png", sample.image)]
            _add(tar, f"{key}.json", json.dumps(sample.row, ensure_ascii=False, allow_nan=False).encode())
            _add(tar, f"{key}.cls", str(target).encode())
            masks = enumerate(sample.masks.values())
            yield offsets + [_add(tar, f"{key}.mask{number}.png", mask) for number, mask in masks]


def finish(folder: Path, collection: Collection) -> None:
    """Write nothing: a tar says it all; see `spicula.convert.formats.Format`."""


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a file that anyone may read; return where its data begin."""
    member = tarfile.TarInfo(name)  # owner 0, time 0
    member.size = len(data)
    begin = tar.offset + tarfile.BLOCKSIZE  # a ustar header takes one block
    tar.addfile(member, io.BytesIO(data))
    return begin
