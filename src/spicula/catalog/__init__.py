"""The catalog: one file a dataset, each turning an archive's own layout and metadata into the Index."""

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from spicula.catalog import build
from spicula.catalog.types import CatalogOptions, Dataset, Option, Reading
from spicula.errors import UsageError

__all__ = ["DATASETS", "CatalogOptions", "Dataset", "Option", "Reading", "class_names", "get", "index_dataset"]

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})

#: Where every dataset is described, by its name.
_MODULES: Mapping[str, str] = MappingProxyType(
    {
        "mini-mias": "mini_mias",
        "breakhis": "breakhis",
        "idc-patches": "idc_patches",
        "cbis-ddsm": "cbis_ddsm",
        "vindr-mammo": "vindr_mammo",
        "inbreast": "inbreast",
        "cmmd": "cmmd",
        "dicom": "pacs",
        "exam-folders": "exam_folders",
        "folder": "folder",
        "phantom": "phantom",
    }
)


class _Datasets(Mapping[str, Dataset]):
    """The datasets, each imported when it is first asked for: a command needs one of them, or none."""

    def __getitem__(self, name: str) -> Dataset:
        dataset: Dataset = import_module(f"{__name__}.{_MODULES[name]}").DATASET
        return dataset

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


#: Every dataset, by name.
DATASETS: Mapping[str, Dataset] = _Datasets()


def get(name: str) -> Dataset:
    """Return a dataset by name.

    Raises:
        UsageError: there is none of that name; the message lists what exists.
    """
    if name in DATASETS:
        return DATASETS[name]
    close = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(f"no dataset {name!r}: there are {', '.join(DATASETS)}{hint}")


def index_dataset(name: str, source: Path, unpack_to: Path, options: Mapping[str, Any] = _NO_OPTIONS) -> Reading:
    """Index a dataset as it was downloaded.

    An archive is unpacked first, unless it was before; when a folder holds both the archive and files of it, the
    archive is read, because a tree that is there need not be whole. Then the dataset's own metadata is read, and from
    every file its size, depth, photometric interpretation and SHA-256.

    Args:
        name: of the dataset.
        source: a folder that holds the archive, the archive itself, or the folder with its content.
        unpack_to: where archives are unpacked, each into a folder of its own.
        options: of this dataset, by name.

    Returns:
        The Index, and what was rejected: files that cannot be read, and lines of tables that make no sense.

    Raises:
        UsageError: no such dataset, option or folder, or nothing of this dataset in it.
        SpiculaError: the archive is refused.
    """
    return build.build(get(name), source, unpack_to, options)


def class_names(name: str, table: pa.Table) -> tuple[str, str]:
    """Return the names of target 0 and target 1 in an Index of a dataset.

    They are the dataset's own; for `folder` and `dicom`, the label of each side where it is one label.
    """
    dataset = get(name)
    if name not in ("folder", "dicom"):
        return dataset.classes
    pairs = set(zip(table["target"].to_pylist(), table["label"].to_pylist(), strict=True))
    sides = [sorted(label for target, label in pairs if target == side) for side in (0, 1)]
    names = [side[0] if len(side) == 1 else default for side, default in zip(sides, dataset.classes, strict=True)]
    return names[0], names[1]
