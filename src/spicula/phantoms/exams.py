"""Whole exams on disk: four views and the truth, made in parallel, each exam once."""

import json
import math
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from spicula import RESEARCH_NOTICE, files
from spicula.errors import SpiculaError, UsageError
from spicula.phantoms.dicom import NOTICE, patient_id, write_dicom
from spicula.phantoms.parenchyma import gland_volume
from spicula.phantoms.render import Picture, render
from spicula.phantoms.types import DENSITIES, SIDES, VIEWS, Density, Side, View
from spicula.phantoms.woman import Woman, draw_woman
from spicula.progress import progress

#: The truth of an exam, written last: an exam's folder that has it is whole.
TRUTH = "exam.json"
FORMAT = "spicula-phantom-exam-1"

#: Part of every exam's key; raised whenever the same settings give other pixels or another truth.
REVISION = 1

SMALLEST, LARGEST = 128, 4096  # rows and columns
NARROWEST, WIDEST = 0.7, 2.0  # columns to one row


@dataclass(frozen=True)
class ExamSettings:
    """Everything that determines one exam."""

    seed: int
    number: int  # from 1
    size: tuple[int, int]  # rows, columns
    prevalence: float
    density: Density | None
    revision: int = REVISION

    @property
    def exam_id(self) -> str:
        """The exam's name, and its folder's."""
        return f"phantom-{self.seed:04d}-{self.number:05d}"

    @property
    def key(self) -> str:
        """SHA-256 of the settings."""
        return files.sha256_json(asdict(self))


def make_exams(
    folder: Path,
    exams: int,
    seed: int = 0,
    size: tuple[int, int] = (1024, 832),
    jobs: int | None = None,
    *,
    prevalence: float = 0.5,
    density: Density | None = None,
) -> Path:
    """Write synthetic four-view screening exams as DICOM, each with its truth, to `folder/EXAM/`.

    An exam that is whole and was made with the same settings is not made again; exams of other seeds, and those beyond
    `exams`, stay as they are. The same settings always give the same exams.

    Args:
        folder: where to.
        exams: how many women; each has one exam of four views.
        seed: of everything random. Another seed is other women; their exams can share a folder.
        size: rows and columns of each image. The field measures the same in mm whatever the size.
        jobs: how many processes; None is one a core.
        prevalence: share of women with a malignant lesion, in one breast, 0 to 1.
        density: BI-RADS density of all breasts, A to D; None draws it for each woman.

    Returns:
        `folder`.

    Raises:
        UsageError: an argument is impossible.
        SpiculaError: the folder cannot be written to, or a process was killed.
    """
    _check(exams, seed, size, jobs)
    _check_women(prevalence, density)
    folder = Path(folder)
    settings = [ExamSettings(seed, n, (size[0], size[1]), float(prevalence), density) for n in range(1, exams + 1)]
    missing = [exam for exam in settings if not is_whole(folder / exam.exam_id, exam.key)]
    for _ in progress(_make_all(folder, missing, jobs), "making phantoms", "exams", total=len(missing)):
        pass
    return folder


def is_whole(exam_folder: Path, key: str) -> bool:
    """Tell whether an exam's folder holds the truth of the exam with this key, and all its images in full length."""
    try:
        truth = json.loads((exam_folder / TRUTH).read_text(encoding="utf-8"))
        return bool(
            truth["key"] == key
            and all((exam_folder / image["file"]).stat().st_size == image["bytes"] for image in truth["images"])
        )
    except (OSError, ValueError, KeyError, TypeError):  # absent, cut off or of another make: to be made anew
        return False


def make_exam(folder: Path, settings: ExamSettings) -> None:
    """Write one exam to `folder/EXAM/`: its images first, the truth last."""
    exam_folder = Path(folder) / settings.exam_id
    _discard(exam_folder / TRUTH)  # it must not stand beside new images, not even when this is interrupted
    woman = draw_woman(settings.seed, settings.number, settings.prevalence, settings.density)
    images = []
    for side in SIDES:
        volume = gland_volume(woman, side)
        for view in VIEWS:
            picture = render(woman, side, view, settings.size, volume)
            images.append(_write_image(exam_folder, settings, woman, picture, side=side, view=view))
    files.write_json(exam_folder / TRUTH, _truth(settings, woman, images))


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        pass  # whoever writes there next will say so
    except OSError as error:
        raise SpiculaError(f"cannot replace {path}: {error.strerror}; check the folder's rights") from error


def _write_image(
    exam_folder: Path, settings: ExamSettings, woman: Woman, picture: Picture, *, side: Side, view: View
) -> dict[str, Any]:
    path = exam_folder / f"{side}-{view}.dcm"
    instance = write_dicom(path, picture, woman, side=side, view=view, exam_id=settings.exam_id, key=settings.key)
    lesions = [lesion for lesion in woman.lesions if lesion.side == side]
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sop_instance_uid": instance,
        "laterality": side,
        "view": view,
        "birads": max((lesion.birads for lesion in lesions), default="1"),
        "glandular_share": round(picture.glandular_share, 4),
        "lesions": [
            {
                "lesion": lesion.number,
                "box": list(picture.boxes[lesion.number]),
                "finding": lesion.finding,
                "kind": lesion.kind,
                "pathology": lesion.pathology,
                "radius_mm": round(lesion.radius_mm, 2),
                "contrast": round(lesion.contrast, 3),
            }
            for lesion in lesions
        ],
    }


def _truth(settings: ExamSettings, woman: Woman, images: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "notice": f"{NOTICE} {RESEARCH_NOTICE}",
        "key": settings.key,
        "settings": asdict(settings),
        "exam_id": settings.exam_id,
        "patient_id": patient_id(woman),
        "age": woman.age,
        "density": woman.density,
        "images": images,
    }


def _make_all(folder: Path, missing: Sequence[ExamSettings], jobs: int | None) -> Iterator[None]:
    processes = min(jobs or os.cpu_count() or 1, len(missing))
    if processes <= 1:
        for settings in missing:
            make_exam(folder, settings)
            yield None
        return
    # spawned, not forked: the caller may have threads, and forking beside threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _one_thread) as pool:
        futures = [pool.submit(make_exam, folder, settings) for settings in missing]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise SpiculaError(
                f"a process that made phantoms for {folder} was killed, perhaps for want of memory; "
                "run it again with fewer jobs: whole exams are kept"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    cv2.setNumThreads(1)  # the processes already share out the cores


def _check(exams: int, seed: int, size: tuple[int, int], jobs: int | None) -> None:
    if exams < 1:
        raise UsageError(f"cannot make {exams} phantom exams; ask for at least 1")
    if seed < 0:
        raise UsageError(f"cannot make phantoms from seed {seed}; a seed is 0 or more")
    if not all(SMALLEST <= side <= LARGEST for side in size):
        raise UsageError(
            f"cannot make phantoms of {size[0]} x {size[1]} pixels; rows and columns are {SMALLEST} to {LARGEST}"
        )
    if not NARROWEST <= size[1] / size[0] <= WIDEST:
        raise UsageError(
            f"cannot make phantoms of {size[0]} x {size[1]} pixels; for {size[0]} rows, "
            f"columns are {math.ceil(NARROWEST * size[0])} to {math.floor(WIDEST * size[0])}"
        )
    if jobs is not None and jobs < 1:
        raise UsageError(f"cannot make phantoms in {jobs} processes; ask for at least 1")


def _check_women(prevalence: float, density: str | None) -> None:
    if not 0.0 <= prevalence <= 1.0:
        raise UsageError(f"cannot make phantoms with a prevalence of {prevalence}; it is a share, 0 to 1")
    if density not in (None, *DENSITIES):
        raise UsageError(f"cannot make phantoms of density {density!r}; it is one of {', '.join(DENSITIES)}")
