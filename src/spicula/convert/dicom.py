"""De-identified DICOM: one file for each of the source, pixel data byte for byte, masks as PNG beside it."""

import functools
from collections.abc import Sequence
from pathlib import Path

from spicula import files
from spicula.convert.image import check_source, convert_masks, identity
from spicula.convert.records import Record
from spicula.convert.sample import Task
from spicula.convert.settings import Settings
from spicula.convert.tree import work_through, write_masks
from spicula.deidentify import Pseudonyms, deidentify_file
from spicula.headers import Header, read_header
from spicula.imaging.worker_process import Tell, guarded


def convert_chunk(folder: Path, tasks: Sequence[Task], settings: Settings, tell: Tell, *, key_file: Path) -> None:
    """De-identify files; `tell` is called with each message about a task."""
    pseudonyms = Pseudonyms.open(key_file)
    work_through(folder, tasks, lambda task: _convert(folder, task, settings, pseudonyms), tell)


def _convert(folder: Path, task: Task, settings: Settings, pseudonyms: Pseudonyms) -> Record:
    target = folder / task.path
    header = guarded(functools.partial(_write, task, target, pseudonyms), "de-identifying")
    geometry = identity(header.height, header.width)
    masks, outcomes = guarded(functools.partial(convert_masks, task, settings, geometry), "converting")
    write_masks(folder, masks)
    return {
        "key": task.key,
        "path": task.path,
        "bytes": target.stat().st_size,
        "sha256": files.sha256_file(target),
        "bits": header.bits,
        "photometric": header.photometric or "MONOCHROME2",
        "masks": outcomes,
        **geometry.to_row(),
    }


def _write(task: Task, target: Path, pseudonyms: Pseudonyms) -> Header:
    check_source(task)
    deidentify_file(Path(task.source), target, pseudonyms, task.row["patient_id"])
    return read_header(target)
