"""Exam folders: four-view screening exams as images named by their view, with or without a published exam list."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spicula import index
from spicula.catalog import choices
from spicula.catalog.exam_folders import exam_files, exam_list
from spicula.catalog.exam_folders.exam_files import Files, Mask, NamedView
from spicula.catalog.exam_folders.exam_list import Exam, Label, Side
from spicula.catalog.tree import Rejection, reject, rejected_table, walk
from spicula.catalog.types import CatalogOptions, Dataset, Option, Reading
from spicula.errors import SpiculaError, UsageError


@dataclass
class _Image:
    """One image that will be a row."""

    exam: str
    side: Side
    view: str
    is_mirrored: bool = False
    label: Label | None = None  # of the breast, by a list
    masks: list[Mask] = field(default_factory=list)


@dataclass
class _Gathered:
    """What was gathered so far: images by path, exams of lists, images that contradict their list, and reports."""

    images: dict[str, _Image] = field(default_factory=dict)
    exams: dict[tuple[str, str], int] = field(default_factory=dict)  # list and exam_id -> position
    refused: set[str] = field(default_factory=set)
    rejected: list[Rejection] = field(default_factory=list)


def read(folder: Path, options: CatalogOptions) -> Reading:
    """Read the images below a folder by their names, and by the exam lists that lie with them.

    Raises:
        UsageError: an option is wrong, or the list that it names cannot be read.
    """
    return read_files(folder, walk(folder), options)


def read_files(
    folder: Path, paths: Iterable[str], options: CatalogOptions, elsewhere: Mapping[str, Path] | None = None
) -> Reading:
    """Read images by their names, and by the exam lists among them; otherwise as `read`.

    Args:
        folder: the root.
        paths: of the images, lists and masks to read, relative to it.
        options: of the dataset.
        elsewhere: path -> the file to read instead, of lists that are no files of the folder.
    """
    pattern = choices.patient_pattern(DATASET.name, options.get("patient_pattern"))
    found = Files(folder.absolute().name)
    for path in paths:
        found.add(path)
    gathered = _Gathered(rejected=found.rejected)
    _add_lists(folder, found, options.get("list"), elsewhere or {}, gathered)
    _add_named(found, gathered)
    _add_masks(folder, found, gathered)
    gathered.rejected += _incomplete(gathered.images.values())
    rows = _rows(gathered.images, gathered.rejected)
    rows = choices.with_patients(rows, pattern, gathered.rejected)
    return Reading(index.from_rows(rows, folder), rejected_table(gathered.rejected))


def _add_lists(
    folder: Path, found: Files, given: Path | None, elsewhere: Mapping[str, Path], gathered: _Gathered
) -> None:
    """Add the images that lists name: the list that was given, else all that there are."""
    there = {path: elsewhere.get(path, folder / path) for path in found.lists}
    lists = there if given is None else {_shown(folder, given): given}
    for name, path in lists.items():
        try:
            exams, problems = exam_list.read(path)
        except SpiculaError as error:
            if given is not None:
                raise UsageError(f"exam-folders: the list {path} {error}") from error
            gathered.rejected.append(reject(name, str(error)))
            continue
        gathered.rejected += [reject(name, problem) for problem in problems]
        for exam in exams:
            _add_exam(name, exam, found, gathered)


def _shown(folder: Path, path: Path) -> str:
    """Return the name of a list for messages, relative to the folder where it lies below it."""
    absolute, root = path.absolute(), folder.absolute()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path.name


def _add_exam(name: str, exam: Exam, found: Files, gathered: _Gathered) -> None:
    """Add the images of one entry of a list."""
    beside, rejected = name.rpartition("/")[0], gathered.rejected
    views = [(*key, one) for key, names in exam.images.items() for one in dict.fromkeys(names)]
    files = {(side, view, one): found.find(one, beside) for side, view, one in views}
    if all(path is None for path, _ in files.values()):
        rejected.append(reject(name, f"exam {exam.position}: none of its {len(views)} images is there"))
        return
    exam_id = _exam_id(name, exam, {found.images[path] for path, _ in files.values() if path})
    if gathered.exams.setdefault((name, exam_id), exam.position) != exam.position:
        exam_id = _own_id(name, exam)
    for (side, view, one), (path, reason) in files.items():
        if path is None:
            rejected.append(reject(name, f"exam {exam.position}: its {side}-{view} {ascii(one)[:80]} {reason}"))
            continue
        image = _Image(exam_id, side, view, exam.is_mirrored, exam.labels[side])
        named = found.images[path]
        if named is not None and (named.side, named.view) != (side, view):
            gathered.refused.add(path)
            said = f"{name} has it as {side}-{view} of exam {exam.position}"
            rejected.append(reject(path, f"named as {named.side}-{named.view}, but {said}"))
        elif gathered.images.setdefault(path, image) != image:
            rejected.append(reject(path, f"exam {exam.position} of {name} says otherwise than an earlier entry"))


def _add_named(found: Files, gathered: _Gathered) -> None:
    """Add the images that no list names, by their own names."""
    for path, named in found.images.items():
        if path in gathered.images or path in gathered.refused:
            continue
        if named is None:
            reason = "its name is not that of a view (L_CC, R-MLO_2, 7_L-CC), and no list names it"
            gathered.rejected.append(reject(path, reason))
        else:
            gathered.images[path] = _Image(named.exam, named.side, named.view)


def _add_masks(folder: Path, found: Files, gathered: _Gathered) -> None:
    masks, problems = exam_files.masks(folder, found)
    gathered.rejected += problems
    for mask in masks:
        if mask.image in gathered.images:
            gathered.images[mask.image].masks.append(mask)


def _exam_id(name: str, exam: Exam, named: set[NamedView | None]) -> str:
    """Return the exam that the names of all images agree on, else list and position."""
    exams = {view.exam if view else None for view in named}
    agreed = exams.pop() if len(exams) == 1 else None
    return agreed or _own_id(name, exam)


def _own_id(name: str, exam: Exam) -> str:
    return f"{exam_files.stem(name)}-{exam.position}"


def _incomplete(images: Iterable[_Image]) -> list[Rejection]:
    views: dict[str, set[tuple[str, str]]] = {}
    for image in images:
        views.setdefault(image.exam, set()).add((image.side, image.view))
    rejected = []
    for exam, there in views.items():
        missing = [f"{side}-{view}" for side, view in exam_list.VIEWS if (side, view) not in there]
        if missing:
            rejected.append(reject(exam, f"the exam has no {', '.join(missing)}; its other images are indexed"))
    return rejected


def _rows(images: Mapping[str, _Image], rejected: list[Rejection]) -> list[dict[str, Any]]:
    labels = _labels(images, rejected)
    rows: dict[str, dict[str, Any]] = {}
    for path, image in images.items():
        label, image_id = labels[image.exam, image.side], exam_files.stem(path)
        if image_id in rows:
            rejected.append(reject(path, f"has the name of {rows[image_id]['path']}, which is indexed"))
            continue
        rows[image_id] = {
            "dataset": DATASET.name,
            "image_id": image_id,
            "exam_id": image.exam,
            "path": path,
            "modality": "MG",
            "laterality": image.side,
            "view": image.view,
            "label": label,
            "target": None if label is None else int(label == "malignant"),
            "flags": ["mirrored"] if image.is_mirrored else [],
            "lesions": [_lesion(mask) for mask in image.masks],
        }
    return list(rows.values())


def _lesion(mask: Mask) -> dict[str, Any]:
    place = {"kind": "mask", "mask_path": mask.path} if mask.path else {"kind": "unlocated"}
    return {**place, "coordinates": [], "pathology": mask.pathology}


def _labels(images: Mapping[str, _Image], rejected: list[Rejection]) -> dict[tuple[str, Side], Label | None]:
    """Return the label of every breast: the list's, else that of the worst mask; none where they contradict."""
    breasts: dict[tuple[str, Side], list[_Image]] = {}
    for image in images.values():
        breasts.setdefault((image.exam, image.side), []).append(image)
    labels: dict[tuple[str, Side], Label | None] = {}
    for (exam, side), views in breasts.items():
        found = {mask.pathology for image in views for mask in image.masks}
        listed = views[0].label
        of_masks: Label | None = "malignant" if "malignant" in found else "benign" if found else None
        if listed and (listed, of_masks) in (("normal", "benign"), ("normal", "malignant"), ("benign", "malignant")):
            rejected.append(
                reject(
                    exam, f"the list calls the breast {side} {listed}, but a mask shows a {of_masks} lesion: no label"
                )
            )
            listed, of_masks = None, None
        labels[exam, side] = listed or of_masks
    return labels


DATASET = Dataset(
    name="exam-folders",
    title="four-view screening exams as images named L_CC, L_MLO, R_CC, R_MLO, and published exam lists",
    source="",
    terms="yours",
    citation="Lists and names after Wu N et al. (2020). Deep Neural Networks Improve Radiologists' Performance in "
    "Breast Cancer Screening. IEEE Transactions on Medical Imaging 39(4), 1184-1194.",
    classes=("non-malignant", "malignant"),
    read=read,
    layout="<exam>/L_CC.png, L_MLO.png, R_CC.png, R_MLO.png, or <exam>_L_CC.png and so on in one folder",
    options={
        "list": Option("The exam list (a pickle or JSON); without it, those that lie with the images.", is_path=True),
        "patient_pattern": Option("A regular expression on the path whose one group is the patient."),
    },
)
