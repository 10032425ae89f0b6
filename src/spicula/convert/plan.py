"""From an Index to tasks: what every image is called in the output, and what its pixels depend on."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from spicula import files, index
from spicula.convert.image import TOO_DEEP
from spicula.convert.names import image_names, mask_names, pseudonymous
from spicula.convert.sample import MaskTask, Task
from spicula.convert.settings import Settings
from spicula.deidentify import Pseudonyms
from spicula.deidentify.pseudonyms import Kind
from spicula.errors import UsageError
from spicula.progress import progress

#: In a de-identified Index nobody is older: few people are, and an age could tell who they are (45 CFR 164.514 (b)(2)).
OLDEST_AGE = 90.0


@dataclass(frozen=True)
class Planned:
    """One row of the source Index, in its order.

    Attributes:
        shown: the path that tables and messages show: the source's, or that of the output where names are pseudonyms.
        task: what is to be done, or the reason why nothing can be.
    """

    shown: str
    task: Task | str


@dataclass(frozen=True)
class _Image:
    """One row, and what it is to be called."""

    row: dict[str, Any]
    path: str
    masks: dict[str, str]  # source path -> output path
    ids: dict[str, str | None]


def check(table: pa.Table, to: Path, settings: Settings) -> None:
    """Refuse what cannot end well, before anything is written.

    Raises:
        UsageError: the output would lie among the sources, which are only ever read, or png8 would lose bits.
    """
    if settings.format == "png8" and settings.preset == "raw":
        deepest = max((bits or 0 for bits in table["bits"].to_pylist()), default=0)
        if deepest > 8:
            raise UsageError(TOO_DEEP.format(bits=deepest))
    to = to.resolve()
    if any(path.resolve().is_relative_to(to) for path in index.image_paths(table)):
        raise UsageError(f"{to} holds images of this Index; choose a folder of its own for the output")


def plan_tasks(table: pa.Table, settings: Settings, pseudonyms: Pseudonyms | None, jobs: int) -> list[Planned]:
    """Return what is to be done for every row of an Index.

    Files that have no digest in the Index are read to get one.

    Args:
        table: the Index.
        settings: of the conversion.
        pseudonyms: for ids and paths; None keeps them.
        jobs: threads that compute digests.
    """
    root = index.root_of(table)
    rows = table.to_pylist()
    named = _named(rows) if pseudonyms is None else _pseudonymous(rows, settings, pseudonyms)
    digests = _digests(root, rows, jobs)
    planned = []
    for image, digest in zip(named, digests, strict=True):
        shown = image.row["path"] if pseudonyms is None else image.path
        if isinstance(digest, OSError):
            planned.append(Planned(shown, f"cannot be read: {digest.strerror or digest}"))
        else:
            planned.append(Planned(shown, _task(image, root, digest, settings)))
    return planned


def _task(image: _Image, root: Path, digest: str, settings: Settings) -> Task:
    row = image.row
    is_dicom = settings.format == "dicom"
    masks = [MaskTask(str(root / source), path) for source, path in image.masks.items()]
    lesions = [{**one, "mask_path": image.masks.get(one["mask_path"], one["mask_path"])} for one in row["lesions"]]
    frame = None if is_dicom else row["frame"]  # a DICOM file keeps all of its frames
    return Task(
        key=files.sha256_json([settings.digest(), digest, frame, image.path, [_stamp(mask) for mask in masks]]),
        row={**row, **image.ids, "path": image.path, "frame": row["frame"] if is_dicom else 0, "lesions": lesions},
        source=str(root / row["path"]),
        sha256=digest,
        frame=row["frame"],
        masks=masks,
    )


def _stamp(mask: MaskTask) -> list[Any]:
    """Return what changes when a mask file does. The Index has no digest of it, and reading all of them takes long."""
    try:
        status = Path(mask.source).stat()
    except OSError:
        return [mask.path, None, None]
    return [mask.path, status.st_size, status.st_mtime_ns]


def _named(rows: Sequence[dict[str, Any]]) -> Iterator[_Image]:
    images = image_names((row["path"], row["frame"]) for row in rows)
    wanted = [(row["path"], row["frame"], mask) for row in rows for mask in _mask_paths(row)]
    masks = mask_names(wanted, images.values())
    for row in rows:
        own = {mask: masks[row["path"], row["frame"], mask] for mask in _mask_paths(row)}
        yield _Image(row, images[row["path"], row["frame"]], own, {})


def _pseudonymous(rows: Sequence[dict[str, Any]], settings: Settings, pseudonyms: Pseudonyms) -> Iterator[_Image]:
    kinds: tuple[Kind, ...] = ("patient", "exam", "image")
    links: list[tuple[Kind, str]] = [
        (kind, row[f"{kind}_id"]) for row in rows for kind in kinds if row[f"{kind}_id"] is not None
    ]
    made = dict(zip(links, pseudonyms.of_all(links), strict=True))
    file_of: dict[str, str] = {}  # the frames of one DICOM file stay in one file, called like the first of its images
    for row in rows:
        ids = {f"{kind}_id": made.get((kind, row[f"{kind}_id"])) for kind in kinds}
        stem = str(ids["image_id"])
        if settings.format == "dicom":
            stem = file_of.setdefault(row["path"], stem)
        suffix = ".dcm" if settings.format == "dicom" else ".png"
        path = pseudonymous(ids["patient_id"], ids["exam_id"], stem, suffix)
        masks = {
            mask: pseudonymous(ids["patient_id"], ids["exam_id"], str(ids["image_id"]), f"-mask-{number}.png")
            for number, mask in enumerate(_mask_paths(row), start=1)
        }
        age = row["age"] if row["age"] is None else min(row["age"], OLDEST_AGE)
        yield _Image({**row, "age": age}, path, masks, ids)


def _mask_paths(row: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(one["mask_path"] for one in row["lesions"] if one["mask_path"]))


def _digests(root: Path, rows: Sequence[dict[str, Any]], jobs: int) -> list[str | OSError]:
    digests: list[Any] = [row["sha256"] for row in rows]
    unknown = [number for number, digest in enumerate(digests) if digest is None]
    if unknown:
        with ThreadPoolExecutor(jobs) as pool:
            found = pool.map(_digest, [root / rows[number]["path"] for number in unknown])
            for number, digest in zip(unknown, progress(found, "hashing images", total=len(unknown)), strict=True):
                digests[number] = digest
    return digests


def _digest(path: Path) -> str | OSError:
    try:
        return files.sha256_file(path)
    except OSError as error:
        return error
