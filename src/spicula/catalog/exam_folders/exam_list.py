"""Published exam lists: which images make an exam, whether they are mirrored, what is known of the breasts.

A list is a Python list of dictionaries, one an exam, as a pickle or as JSON:
{"horizontal_flip": "NO", "L-CC": ["0_L_CC"], "R-CC": [...], "L-MLO": [...], "R-MLO": [...]}, and maybe "cancer_label":
{"left_benign": 0, "right_benign": 1, "left_malignant": 0, "right_malignant": 0} (Wu et al., IEEE TMI 2019).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spicula.catalog.exam_folders import pickled_list
from spicula.errors import SpiculaError

Side = Literal["L", "R"]
Label = Literal["benign", "malignant", "normal"]

#: The views of an exam, in the order that the published classifier has them in.
VIEWS: tuple[tuple[Side, str], ...] = (("L", "CC"), ("R", "CC"), ("L", "MLO"), ("R", "MLO"))
#: Most images of one view, and the longest of their names.
MAX_IMAGES = 100
MAX_NAME = 255
_SIDES: Mapping[Side, str] = {"L": "left", "R": "right"}


@dataclass(frozen=True)
class Exam:
    """One exam of a list.

    Attributes:
        position: in the list, from 0.
        is_mirrored: whether every image of it is stored mirrored (`horizontal_flip` is YES).
        images: side and view -> names of its images, without folder and extension; all four views are there.
        labels: side -> malignant, benign, normal (neither finding), or None where the list does not say.
    """

    position: int
    is_mirrored: bool
    images: Mapping[tuple[Side, str], tuple[str, ...]]
    labels: Mapping[Side, Label | None]


def read(path: Path) -> tuple[list[Exam], list[str]]:
    """Read an exam list (.json, else a pickle); nothing in it is executed.

    Names in it are text of others: look them up among files that are there, and never open them.

    Returns:
        Exams, and what is wrong with entries that could not be used, each with its position.

    Raises:
        SpiculaError: it cannot be read, or is no list; the message is the reason alone.
    """
    try:
        content = _read_json(path) if path.suffix.lower() == ".json" else pickled_list.read(path)
    except OSError as error:
        raise SpiculaError(f"cannot be read: {error.strerror}") from error
    if not isinstance(content, list):
        raise SpiculaError(f"holds a {type(content).__name__}, not a list of exams")
    exams, problems = [], []
    for position, entry in enumerate(content):
        try:
            exams.append(_exam(position, entry))
        except ValueError as error:
            problems.append(f"exam {position}: {error}")
    return exams, problems


def _read_json(path: Path) -> Any:
    size = path.stat().st_size
    if size > pickled_list.MAX_BYTES:
        raise SpiculaError(f"has {size} bytes; at most {pickled_list.MAX_BYTES} are read")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SpiculaError("is not JSON") from error


def _exam(position: int, entry: Any) -> Exam:
    if not isinstance(entry, dict):
        raise ValueError(f"is a {type(entry).__name__}, not a dictionary")
    images = {(side, view): _names(entry, f"{side}-{view}") for side, view in VIEWS}
    if not any(images.values()):
        raise ValueError("names no images under L-CC, R-CC, L-MLO or R-MLO")
    labels: dict[Side, Label | None] = {side: _label(entry.get("cancer_label"), name) for side, name in _SIDES.items()}
    return Exam(position, _is_mirrored(entry), images, labels)


def _names(entry: Mapping[Any, Any], view: str) -> tuple[str, ...]:
    names = entry.get(view) or []
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list | tuple) or len(names) > MAX_IMAGES:
        raise ValueError(f"has under {view} something else than a list of at most {MAX_IMAGES} names")
    if not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME for name in names):
        raise ValueError(f"has under {view} something else than names of at most {MAX_NAME} characters")
    return tuple(names)


def _is_mirrored(entry: Mapping[Any, Any]) -> bool:
    flip = entry.get("horizontal_flip", "NO")
    if flip not in ("YES", "NO"):
        raise ValueError("has a horizontal_flip that is neither YES nor NO")
    return bool(flip == "YES")


def _label(said: Any, side: str) -> Label | None:
    """Return what a list says of one breast; None where either finding is not said to be there (1) or not (0)."""
    if not isinstance(said, dict) or said.get("unknown") == 1:
        return None
    benign, malignant = said.get(f"{side}_benign"), said.get(f"{side}_malignant")
    if malignant == 1:
        return "malignant"
    if benign == 1 and malignant == 0:
        return "benign"
    return "normal" if benign == 0 and malignant == 0 else None
