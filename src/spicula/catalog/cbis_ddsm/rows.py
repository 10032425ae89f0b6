"""The rows of the Index of CBIS-DDSM: one a full mammogram, or one a lesion."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spicula.catalog.cbis_ddsm import rois
from spicula.catalog.cbis_ddsm.files import File
from spicula.catalog.cbis_ddsm.rois import Roi
from spicula.catalog.cbis_ddsm.tables import PATHOLOGIES, Lesion, Tables, View

NAME = "cbis-ddsm"
SOURCE = "https://www.cancerimagingarchive.net/collection/cbis-ddsm/"

#: Assessments in order of concern: 0 asks for more images, and so stands between "probably benign" and "suspicious".
CONCERN = ("1", "2", "3", "0", "4", "5", "6")


@dataclass(frozen=True)
class Archive:
    """What was found.

    Attributes:
        root: the folder.
        tables: what the four tables say.
        splits: train or test, by case.
        images: the full mammogram, by case; those that are there.
        rois: the files of each lesion told apart, by the lesion's name; of all lesions that a row can speak of.
    """

    root: Path
    tables: Tables
    splits: Mapping[str, str]
    images: Mapping[str, File]
    rois: Mapping[str, Roi]


def of_images(archive: Archive) -> Iterator[dict[str, Any]]:
    """Yield one row for each case whose full mammogram is there."""
    by_view: dict[View, list[Lesion]] = {}
    by_case: dict[str, list[Lesion]] = {}
    for lesion in archive.tables.lesions:
        by_view.setdefault(lesion.view, []).append(lesion)
        by_case.setdefault(lesion.case, []).append(lesion)
    for case, own in by_case.items():
        if case in archive.images:
            others = [lesion for lesion in by_view[own[0].view] if lesion.case != case]
            yield _image(archive, case, [*own, *others])


def _image(archive: Archive, case: str, lesions: Sequence[Lesion]) -> dict[str, Any]:
    """Return the row of a full mammogram.

    Args:
        archive: what was found.
        case: of this image.
        lesions: of its view, first those of the case, then those that the other abnormality's tables name.
    """
    image, first = archive.images[case], lesions[0]
    pathology = min((lesion.pathology for lesion in lesions), key=PATHOLOGIES.index)
    is_sure = pathology == "MALIGNANT" or first.view not in archive.tables.doubtful
    birads = [lesion.birads for lesion in lesions if lesion.birads]
    same_film = {case: True}
    for other in {lesion.case for lesion in lesions} & set(archive.images) - {case}:
        same_film[other] = rois.same_film(archive.root, image, archive.images[other])
    return {
        **_common(archive, first, image),
        "image_id": case,
        **_verdict(pathology if is_sure else None),
        "birads": max(birads, key=CONCERN.index, default=None),
        "lesions": [
            _entry(lesion, archive.rois[lesion.name].placed if same_film.get(lesion.case) else None)
            for lesion in lesions
        ],
    }


def of_lesions(archive: Archive) -> Iterator[dict[str, Any]]:
    """Yield one row for each lesion whose cropped image is there."""
    for lesion in archive.tables.lesions:
        crop = archive.rois[lesion.name].crop
        if crop:
            yield {
                **_common(archive, lesion, crop),
                "image_id": lesion.name,
                **_verdict(lesion.pathology),
                "birads": lesion.birads,
                # The mask is one of the full mammogram; where in it the crop lies, the archive does not say.
                "lesions": [_entry(lesion, None)],
            }


def _common(archive: Archive, lesion: Lesion, file: File) -> dict[str, Any]:
    return {
        "dataset": NAME,
        "patient_id": lesion.view.person,
        "exam_id": lesion.view.person,  # DDSM: one case is one exam, of one date, of one woman
        "path": file.path,
        "laterality": lesion.view.laterality,
        "view": lesion.view.view,
        "density": lesion.density,
        "split": archive.splits[lesion.case],
        "flags": list(file.flags),
        "source": SOURCE,
        **file.columns,
    }


def _verdict(pathology: str | None) -> dict[str, Any]:
    if pathology is None:
        return {"label": None, "target": None, "subtype": None}
    is_malignant = pathology == "MALIGNANT"
    return {
        "label": "malignant" if is_malignant else "benign",
        "target": int(is_malignant),
        "subtype": pathology,
    }


def _entry(lesion: Lesion, mask: File | None) -> dict[str, Any]:
    return {
        "kind": "mask" if mask else "unlocated",
        "coordinates": [],
        "mask_path": mask.path if mask else None,
        "finding": lesion.finding,
        "pathology": "malignant" if lesion.is_malignant else "benign",
        "birads": lesion.birads,
    }
