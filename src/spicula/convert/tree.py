"""The layout of one file an image, under the structure of the source: PNG, or de-identified DICOM."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from spicula import files
from spicula import index as indexes
from spicula.convert import records
from spicula.convert.image import convert_image
from spicula.convert.records import Record
from spicula.convert.sample import Task
from spicula.convert.settings import Settings
from spicula.errors import RejectedImageError
from spicula.imaging.worker_process import Tell, guarded

#: The new Index, in the output folder.
INDEX = "index.parquet"

#: Fewest and most images handed to a worker at a time.
CHUNK_IMAGES = (4, 64)
#: Into how many chunks the work is cut, where that gives none that is too small or too large.
CHUNKS = 64
#: Images are recorded at the end of a chunk, or when the first has waited this long: that much work a kill can cost.
RECORD_SECONDS = 20.0


def missing(folder: Path, tasks: Sequence[Task], settings: Settings) -> list[list[Task]]:
    """Return what is still to be converted, in chunks of neighbours, and forget what was known of it."""
    there = records.whole(folder, tasks)
    todo = list({task.key: task for task in tasks if task.key not in there}.values())
    if todo:
        records.fold(folder, without={task.path for task in todo})
    fewest, most = CHUNK_IMAGES
    size = max(fewest, min(most, len(todo) // CHUNKS))
    return [todo[at : at + size] for at in range(0, len(todo), size)]


def convert_chunk(folder: Path, tasks: Sequence[Task], settings: Settings, tell: Tell) -> None:
    """Convert images and write each to its file; `tell` is called with each message about a task."""

    def convert(task: Task) -> Record:
        sample = guarded(functools.partial(convert_image, task, settings), "converting")
        write_masks(folder, sample.masks)
        files.write_bytes(folder / task.path, sample.image)
        return sample.record

    work_through(folder, tasks, convert, tell)


def work_through(folder: Path, tasks: Sequence[Task], convert: Callable[[Task], Record], tell: Tell) -> None:
    """Convert images one by one, and record them.

    Args:
        folder: the output folder.
        tasks: of the images.
        convert: writes the files of one task and returns its record, or refuses it.
        tell: called with each message about a task.
    """
    made: list[Record] = []
    numbers: list[int] = []
    began = 0.0
    for number, task in enumerate(tasks):
        try:
            record = convert(task)
        except RejectedImageError as error:
            tell("rejected", number, str(error))
            continue
        if not made:
            began = time.monotonic()
        made.append(record)
        numbers.append(number)
        tell("done", number)
        if time.monotonic() - began >= RECORD_SECONDS:
            _save(folder, made, numbers, tell)
    if made:
        _save(folder, made, numbers, tell)


def write_masks(folder: Path, masks: Mapping[str, bytes]) -> None:
    """Write the masks of an image."""
    for path, data in masks.items():
        files.write_bytes(folder / path, data)


def collect(folder: Path, tasks: Sequence[Task], settings: Settings) -> dict[str, Record]:
    """Return the record of every task that is done, by its key."""
    records.fold(folder)
    return records.whole(folder, tasks)


def finish(folder: Path, index: pa.Table, records: Mapping[str, Record], settings: Settings) -> None:
    """Write the new Index."""
    indexes.write(folder / INDEX, index)


def _save(folder: Path, made: list[Record], numbers: list[int], tell: Tell) -> None:
    records.write(folder, made)
    tell("saved", list(numbers))
    made.clear()
    numbers.clear()
