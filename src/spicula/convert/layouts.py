"""Which module writes which format, and what all of them have in common."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from spicula.convert.records import Record
from spicula.convert.sample import Task
from spicula.convert.settings import TREE_FORMATS, Settings
from spicula.imaging.worker_process import Tell


class Layout(Protocol):
    """What a layout is; see `spicula.convert.sample`."""

    def missing(self, folder: Path, tasks: Sequence[Task], settings: Settings) -> list[list[Task]]:
        """Return what is still to be converted."""

    def convert_chunk(self, folder: Path, tasks: Sequence[Task], settings: Settings, tell: Tell) -> None:
        """Convert and write."""

    def collect(self, folder: Path, tasks: Sequence[Task], settings: Settings) -> dict[str, Record]:
        """Return what is done."""

    def finish(self, folder: Path, index: pa.Table, records: Mapping[str, Record], settings: Settings) -> None:
        """Write what stands beside the images."""


def layout_of(settings: Settings) -> Layout:
    """Return the module that writes a format."""
    if settings.format in TREE_FORMATS:
        from spicula.convert import tree

        return tree
    from spicula.convert import shards

    return shards


def setting_of(folder: Path, settings: Settings, key_file: Path | None) -> dict[str, Any]:
    """Return what a worker is told first, as JSON values."""
    return {
        "folder": str(folder),
        "settings": settings.model_dump(mode="json"),
        "key_file": None if key_file is None else str(key_file),
    }
