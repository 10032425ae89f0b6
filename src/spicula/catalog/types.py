"""What every dataset of the catalog is: a description, and a function that reads its layout into an Index."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

#: The options of one dataset, by name: those that its `Dataset.options` lists, paths already absolute.
CatalogOptions = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """What a folder held: the Index of its images, and what could not be used.

    Attributes:
        index: an Index (`spicula.index.SCHEMA`); paths are relative to the folder that was read.
        rejected: path and reason (`spicula.index.REJECTED`), of files, and of lines of the dataset's own tables.
    """

    index: pa.Table
    rejected: pa.Table


@dataclass(frozen=True)
class Option:
    """One option of a dataset.

    Attributes:
        help: what it is for, in one sentence.
        is_path: a file or folder; a relative one is looked for in the data folder, then in the unpacked archive.
        beside: the name of a file that is taken for this option when it lies beside the archive.
    """

    help: str
    is_path: bool = False
    beside: str | None = None


@dataclass(frozen=True)
class Dataset:
    """One dataset of the catalog.

    Attributes:
        name: as the command line and recipes name it.
        title: one line that says what it is.
        source: where its archive is to be had (URL), as the Index's column `source` says it.
        terms: the licence or the terms of use, in one line.
        citation: what to cite.
        classes: the names of target 0 and target 1.
        read: reads the unpacked folder; every image it lists is then described by `spicula.catalog.index_dataset`
            (width, height, bits, photometric, sha256).
        layout: what a folder of it looks like, for the message when nothing is found.
        archives: glob patterns of the names that its archive files have.
        options: what `read` understands, by name.
        expected: what the whole archive has by its official numbers, of "images", "patients" and "exams", so that a
            part can be told from the whole; empty where there is no such number.
    """

    name: str
    title: str
    source: str
    terms: str
    citation: str
    classes: tuple[str, str]
    read: Callable[[Path, CatalogOptions], Reading]
    layout: str
    archives: tuple[str, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)
    expected: Mapping[str, int] = field(default_factory=dict)
