"""BreakHis: 7,909 microscope images of benign and malignant breast tumours of 82 patients, at four magnifications."""

import re
from pathlib import Path
from typing import Any

from spicula import index
from spicula.catalog.breakhis import folds as official
from spicula.catalog.tree import rejected_table, rows_by_name
from spicula.catalog.types import CatalogOptions, Dataset, Option, Reading

CLASSES = {"B": "benign", "M": "malignant"}
#: Tumour types of the file names, and the folders that hold them.
SUBTYPES = {
    "A": ("B", "adenosis"),
    "F": ("B", "fibroadenoma"),
    "PT": ("B", "phyllodes_tumor"),
    "TA": ("B", "tubular_adenoma"),
    "DC": ("M", "ductal_carcinoma"),
    "LC": ("M", "lobular_carcinoma"),
    "MC": ("M", "mucinous_carcinoma"),
    "PC": ("M", "papillary_carcinoma"),
}
MAGNIFICATIONS = (40, 100, 200, 400)

# SOB_<class>_<type>-<year>-<slide>-<magnification>-<number>.png
_NAME = re.compile(
    r"SOB_(?P<class>[BM])_(?P<type>[A-Z]+)-(?P<year>\d+)-(?P<slide>[0-9A-Z]+)-(?P<magnification>\d+)-(?P<number>\d+)\.png"
)
_SLIDE_FOLDER = re.compile(r"SOB_[BM]_[A-Z]+[_-].+")
_MAGNIFICATION_FOLDER = re.compile(r"\d+X")
_SUBTYPE_FOLDERS = {folder for _, folder in SUBTYPES.values()}


def read(folder: Path, options: CatalogOptions) -> Reading:
    """Read the BreakHis tree: class, subtype, patient and magnification from the names, checked against the folders.

    With the options `folds_file` and `fold`, the split of an official fold is written to `split`.

    Raises:
        UsageError: the options do not go together, or the fold file cannot be read.
    """
    folds = official.read(options.get("folds_file"), options.get("fold"))
    rows, rejected = rows_by_name(folder, _parse)
    if folds is not None:
        rejected += official.assign(rows, folds)
    return Reading(index.from_rows(rows, folder), rejected_table(rejected))


def _parse(path: str) -> dict[str, Any] | str:
    """Return the row of a path, or what is wrong with it."""
    *parents, name = path.split("/")
    found = _NAME.fullmatch(name)
    if not found:
        return "the name is not SOB_<B or M>_<type>-<year>-<slide>-<magnification>-<number>.png"
    letter, subtype = SUBTYPES.get(found["type"], ("", ""))
    if not subtype:
        return f"the name has the tumour type {found['type']}, not one of {', '.join(SUBTYPES)}"
    if letter != found["class"]:
        return f"the name says {CLASSES[found['class']]}, but its tumour type {found['type']} is {CLASSES[letter]}"
    if int(found["magnification"]) not in MAGNIFICATIONS:
        return f"the name has the magnification {found['magnification']}, not one of {MAGNIFICATIONS}"
    problem = _folder_problem(parents, found, subtype)
    if problem:
        return problem
    return {
        "dataset": DATASET.name,
        "image_id": name.removesuffix(".png"),
        "patient_id": f"{found['year']}-{found['slide']}",
        "path": path,
        "modality": "SM",
        "label": CLASSES[letter],
        "target": int(letter == "M"),
        "subtype": subtype,
        "magnification": float(found["magnification"]),
        "source": DATASET.source,
    }


def _folder_problem(parents: list[str], found: re.Match[str], subtype: str) -> str | None:
    """Compare the folders that a file lies in with its name; folders that say nothing about it are let be."""
    slide = f"{found['year']}-{found['slide']}"
    for parent in parents:
        wanted = None
        if parent in CLASSES.values():
            wanted = CLASSES[found["class"]]
        elif parent in _SUBTYPE_FOLDERS:
            wanted = subtype
        elif _MAGNIFICATION_FOLDER.fullmatch(parent):
            wanted = f"{found['magnification']}X"
        elif _SLIDE_FOLDER.fullmatch(parent):
            wanted = f"SOB_{found['class']}_{found['type']}_{slide}"
        if wanted is not None and parent != wanted:
            return f"lies in the folder {parent}, but its name belongs into {wanted}"
    return None


DATASET = Dataset(
    name="breakhis",
    title="BreakHis: 7,909 microscope images of benign and malignant breast tumours of 82 patients, 40x to 400x",
    source="https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/",
    terms="CC BY 4.0",
    citation="Spanhol FA, Oliveira LS, Petitjean C, Heutte L (2016). A Dataset for Breast Cancer Histopathological "
    "Image Classification. IEEE Trans Biomed Eng 63(7), 1455-1462, doi:10.1109/TBME.2015.2496264.",
    classes=("benign", "malignant"),
    read=read,
    layout="BreaKHis_v1.tar.gz, or its tree unpacked: BreaKHis_v1/histology_slides/breast/<class>/SOB/<subtype>/"
    "<slide>/<magnification>X/SOB_*.png",
    archives=("BreaKHis*.tar.gz", "BreaKHis*.tgz", "BreaKHis*.tar", "BreaKHis*.zip"),
    options={
        "folds_file": Option(
            "An official fold file (dsfold1.txt ... dsfold5.txt), or the folder that holds them.", is_path=True
        ),
        "fold": Option("Which official fold, 1 to 5; its train and test sides become the split."),
    },
    expected={"images": 7_909, "patients": 82},
)
