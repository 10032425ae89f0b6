"""Any folder of images: class sub-folders, or a CSV table with named columns."""

from pathlib import Path
from typing import Any

from spicula import headers, index
from spicula.catalog import choices
from spicula.catalog.folder import table as tables
from spicula.catalog.tree import Rejection, is_document, is_text, reject, rejected_table, walk
from spicula.catalog.types import CatalogOptions, Dataset, Option, Reading
from spicula.errors import RejectedImageError, UsageError

#: Top-level folders that are sides of a split, where all of them are.
_SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read(folder: Path, options: CatalogOptions) -> Reading:
    """Read a folder of images, from its class sub-folders or from a CSV table.

    The labels are the folders' names, or what the table says. Folders `train`, `val` and `test` above the class folders
    become the split. With the option `patient_pattern` the patient is what its one group matches in the path.

    Raises:
        UsageError: an option is wrong, a column is not in the table, or it is not clear which label is target 1.
    """
    pattern = choices.patient_pattern(DATASET.name, options.get("patient_pattern"))
    columns = choices.columns(DATASET.name, options.get("columns"))
    if options.get("table") is None:
        if columns is not None:
            raise UsageError("folder: the option columns needs the option table, the CSV file that has them")
        rows, rejected = _read_class_folders(folder)
    else:
        rows, rejected = tables.read(folder, options["table"], columns)
    rows = choices.with_patients(rows, pattern, rejected)
    is_positive = choices.positive_rule(DATASET.name, rows, options.get("positive"))
    for row in rows:
        row["target"] = None if row["label"] is None else int(is_positive(row["label"]))
        row["dataset"] = DATASET.name
    return Reading(index.from_rows(rows, folder), rejected_table(rejected))


def _read_class_folders(folder: Path) -> tuple[list[dict[str, Any]], list[Rejection]]:
    rows, rejected = [], []
    paths = [path for path in walk(folder) if not is_document(path)]
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    depth = 1 if tops and tops <= set(_SPLIT_FOLDERS) else 0
    for path in paths:
        parts = path.split("/")
        if not is_text(path):
            rejected.append(reject(path, "the name is not in UTF-8"))
        elif len(parts) > depth + 1:
            split = _SPLIT_FOLDERS[parts[0]] if depth else None
            rows.append({"image_id": path, "path": path, "label": parts[depth], "split": split})
        elif (folder / path).is_dir():
            rejected.append(reject(path, "a folder that is a link or cannot be listed"))
        elif _is_image(folder / path):
            rejected.append(reject(path, "lies in no class folder"))
    return rows, rejected


def _is_image(path: Path) -> bool:
    try:
        headers.read_header(path)
    except RejectedImageError:
        return False
    return True


DATASET = Dataset(
    name="folder",
    title="any folder of images: class sub-folders, or a CSV table with named columns",
    source="",
    terms="yours",
    citation="",
    classes=("negative", "positive"),
    read=read,
    layout="<class>/<image> (also below train/, val/, test/), or a CSV file given as option table",
    options={
        "table": Option("A CSV file with one row an image; without it, sub-folders are the classes.", is_path=True),
        "columns": Option(
            "Which column of the CSV file holds which column of the Index: {path = ..., label = ..., patient_id = ...}."
        ),
        "positive": Option("The label, or list of labels, that is target 1; default malignant."),
        "patient_pattern": Option("A regular expression on the path whose one group is the patient."),
    },
)
