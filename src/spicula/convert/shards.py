"""The layout of many images a file: workers hand over batches, which are packed into shards when all are there.

See `spicula.convert.sample` for what a layout is, `holdings` for the files, and `packing` for what stands in which.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from spicula.convert import holdings
from spicula.convert.image import convert_image
from spicula.convert.packing import pack
from spicula.convert.sample import RECORD, Sample, Task
from spicula.convert.settings import Settings
from spicula.errors import RejectedImageError
from spicula.imaging.worker_process import Tell, guarded

#: A batch is closed at this size, or when its first image has waited this long: that much work a kill can cost.
BATCH_BYTES = 64 * 2**20
BATCH_SECONDS = 20.0

#: Fewest and most images handed to a worker at a time.
CHUNK_IMAGES = (4, 256)
#: Into how many chunks the work is cut, where that gives none that is too small or too large.
CHUNKS = 64


def missing(folder: Path, tasks: Sequence[Task], settings: Settings) -> list[list[Task]]:
    """Return what is still to be converted, in chunks of neighbours."""
    there = holdings.pieces(holdings.scan(folder))
    todo = list({task.key: task for task in tasks if task.key not in there}.values())
    fewest, most = CHUNK_IMAGES
    size = max(fewest, min(most, len(todo) // CHUNKS))
    return [todo[at : at + size] for at in range(0, len(todo), size)]


def convert_chunk(folder: Path, tasks: Sequence[Task], settings: Settings, tell: Tell) -> None:
    """Convert images and hand them over as batches; `tell` is called with each message about a task."""
    samples: list[Sample] = []
    numbers: list[int] = []
    nbytes, began = 0, 0.0
    for number, task in enumerate(tasks):
        try:
            sample = guarded(partial(convert_image, task, settings), "converting")
        except RejectedImageError as error:
            tell("rejected", number, str(error))
            continue
        if not samples:
            nbytes, began = 0, time.monotonic()
        samples.append(sample)
        numbers.append(number)
        nbytes += len(sample.image) + sum(map(len, sample.masks.values()))
        tell("done", number)
        if nbytes >= BATCH_BYTES or time.monotonic() - began >= BATCH_SECONDS:
            _hand_over(folder, samples, numbers, tell)
    if samples:
        _hand_over(folder, samples, numbers, tell)


def collect(folder: Path, tasks: Sequence[Task], settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the record of every task that is done, by its key."""
    there = holdings.pieces(holdings.scan(folder))
    return {
        task.key: {name: there[task.key].record[name] for name in RECORD.names} for task in tasks if task.key in there
    }


def finish(folder: Path, index: pa.Table, records: Mapping[str, Mapping[str, Any]], settings: Settings) -> None:
    """Pack the images into shards, and write the new Index as their table: images have no files of their own."""
    key_of = {record["path"]: key for key, record in records.items()}
    rows = index.to_pylist()
    pack(folder, settings.format, settings.shard_mb * 10**6, rows, [key_of[row["path"]] for row in rows])


def _hand_over(folder: Path, samples: list[Sample], numbers: list[int], tell: Tell) -> None:
    holdings.save_batch(folder, samples)
    tell("saved", list(numbers))
    samples.clear()
    numbers.clear()
