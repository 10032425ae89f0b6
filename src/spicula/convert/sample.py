"""What flows through a conversion: a task for every image, and what becomes of it. Plain data.

    plan.py      Index -> Tasks (names, pseudonyms, keys)                      in the command's process
    engine       hands chunks of tasks to worker processes: the local pool, or Ray
    worker.py    what such a process does; it calls `convert_chunk` of one of two layouts:
        tree.py      one file an image, under the structure of the source
        shards.py    many images a file: webdataset.py, tfrecord.py, parquet.py
    image.py     convert_image(task, settings) -> Sample                        the one place that makes pixels
    records.py   what is done, in small files that are written after the images
    outcome.py   the tables at the end

A layout is a module with four functions (`layouts.Layout`), so that the rest need not know which one it is:

    missing(folder, tasks, settings) -> list[list[Task]]
        What is still to be done, as chunks. A chunk goes to one process, in order. When an image kills its process,
        it is rejected and the rest of the chunk (also what was "done" but not "saved") is handed out again.
    convert_chunk(folder, tasks, settings, tell) -> None
        In the worker: convert and write. `tell("done", n)` or `tell("rejected", n, reason)` for the n-th task as soon
        as it is decided, `tell("saved", [n, ...])` when the record of those is safe on disk.
    collect(folder, tasks, settings) -> dict[key, record]
        What is there and whole: the `RECORD` of every task that is done.
    finish(folder, index, records, settings) -> None
        What stands beside the images; `index` is the new Index, in the order of the source's. Called with every run,
        also where nothing was missing.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from spicula.imaging.shards import GEOMETRY_FIELDS


@dataclass(frozen=True)
class MaskTask:
    """One mask file of an image, to be converted along with it.

    Attributes:
        source: the mask file, absolute.
        path: of its PNG, relative to the output; what `mask_path` of the lesions says in `Task.row`.
    """

    source: str
    path: str


@dataclass(frozen=True)
class Task:
    """One image to be converted. Goes to worker processes as JSON.

    Attributes:
        key: digest of all that the written image depends on: the file, the frame, its masks, the settings, and where it
            goes. Labels are no part of it: changing them makes no image anew. Rows of one image share a key.
        row: the row of the source Index with `path` and `mask_path` of the output, `frame` 0, pseudonyms for ids where
            wanted. All else (lesions, width, height, sha256, ...) is still the source's; `image.output_row` maps it.
        source: the image file, absolute.
        sha256: of that file, when it was indexed.
        frame: which image of the file.
        masks: mask files of its lesions, each once.
    """

    key: str
    row: dict[str, Any]
    source: str
    sha256: str
    frame: int
    masks: list[MaskTask] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The image's path in the output: structure of the source, `.png`. Unique in a conversion, whatever the format.

        Where images have no files of their own, it is the image's name within its shard.
        """
        return str(self.row["path"])

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Task":
        """Return the task that `as_json` described."""
        return cls(**{**value, "masks": [MaskTask(**mask) for mask in value["masks"]]})


@dataclass(frozen=True)
class Sample:
    """One converted image.

    Attributes:
        row: the row of the new Index: lesions mapped; width, height, bits, photometric and sha256 of `image`. Plain
            values, good for JSON.
        image: a PNG file: grey or RGB, 8 or 16 bits.
        masks: PNG files (grey, 8 bits, 0 and 255, of the image's size) by `mask_path` of the row's lesions.
        record: a row of `RECORD`.
    """

    row: dict[str, Any]
    image: bytes
    masks: dict[str, bytes]
    record: dict[str, Any]


_MASK = pa.struct(
    [
        pa.field("path", pa.string(), nullable=False),  # of the PNG, relative to the output
        pa.field("bytes", pa.int64()),  # of the PNG; null where the mask cannot be used
        pa.field("reason", pa.string()),  # why it cannot
    ]
)

#: What is known of a converted image beyond its task. For images in shards, `bytes` and `sha256` are those of the PNG
#: within the shard.
RECORD = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("bits", pa.int16(), nullable=False),
        pa.field("photometric", pa.string(), nullable=False),
        pa.field("masks", pa.list_(_MASK), nullable=False),
        *GEOMETRY_FIELDS,
    ]
)
