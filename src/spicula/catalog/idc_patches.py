"""IDC patches: 277,524 pieces of 50 x 50 pixels of breast cancer slides, with or without invasive ductal carcinoma."""

import re
from pathlib import Path
from typing import Any

from spicula import index
from spicula.catalog.tree import rejected_table, rows_by_name
from spicula.catalog.types import CatalogOptions, Dataset, Reading

CLASSES = ("negative", "idc")

# <patient>/<class>/<patient>_idx5_x<X>_y<Y>_class<C>.png
_NAME = re.compile(r"(?P<patient>\w+?)_idx\d+_x\d+_y\d+_class(?P<target>[01])\.png")


def read(folder: Path, options: CatalogOptions) -> Reading:
    """Read the tree of IDC patches: patient and class from the path, checked against the name.

    The position of a patch in its slide stays in its `image_id` (`10253_idx5_x1351_y1101_class0`).
    """
    rows, rejected = rows_by_name(folder, _parse)
    return Reading(index.from_rows(rows, folder), rejected_table(rejected))


def _parse(path: str) -> dict[str, Any] | str:
    """Return the row of a path, or what is wrong with it."""
    *parents, name = path.split("/")
    found = _NAME.fullmatch(name)
    if not found:
        return "the name is not <patient>_idx5_x<X>_y<Y>_class<0 or 1>.png"
    if len(parents) < 2:
        return "lies in no folder <patient>/<class>"
    if parents[-1] != found["target"]:
        return f"the name says class {found['target']}, its folder {parents[-1]}"
    if parents[-2] != found["patient"]:
        return f"the name says patient {found['patient']}, its folder {parents[-2]}"
    target = int(found["target"])
    return {
        "dataset": DATASET.name,
        "image_id": name.removesuffix(".png"),
        "patient_id": found["patient"],
        "path": path,
        "modality": "SM",
        "label": CLASSES[target],
        "target": target,
        "source": DATASET.source,
    }


DATASET = Dataset(
    name="idc-patches",
    title="IDC patches: 277,524 histology patches of 279 women, with or without invasive ductal carcinoma",
    source="http://gleason.case.edu/webdata/jpi-dl-tutorial/IDC_regular_ps50_idx5.zip",
    terms="published for research, without a licence text; cite both papers",
    citation="Cruz-Roa A et al. (2014). Automatic detection of invasive ductal carcinoma in whole slide images with "
    "convolutional neural networks. SPIE Medical Imaging 9041, 904103, doi:10.1117/12.2043872. Janowczyk A, "
    "Madabhushi A (2016). Deep learning for digital pathology image analysis. J Pathol Inform 7:29, "
    "doi:10.4103/2153-3539.186902.",
    classes=CLASSES,
    read=read,
    layout="IDC_regular_ps50_idx5.zip, or its tree unpacked: "
    "<patient>/<class>/<patient>_idx5_x<X>_y<Y>_class<class>.png",
    archives=("IDC_regular*.zip", "IDC_regular*.tar.gz"),
    expected={"images": 277_524, "patients": 279},
)
