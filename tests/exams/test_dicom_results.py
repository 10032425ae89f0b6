"""Results as DICOM objects of the exam's study: whose they are, which they are, and what is refused."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_results import (
    ALGORITHM,
    IDENTITY,
    MADE,
    change_all,
    everything,
    image_files,
    needs_dciodvfy,
    predictions,
    results,
    rewrite,
    verify,
)
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from spicula import files
from spicula.errors import SpiculaError, UsageError
from spicula.exams.outputs.dicom import codes, export, write

pytest.importorskip("highdicom", reason="needs highdicom: the extra exams")


def test_every_object_belongs_to_the_study_and_to_a_series_of_its_own(exam, tmp_path):
    change_all(exam, lambda image: image.update({"PatientName": "Doe^Jane", "AccessionNumber": "A-17"}))
    written = everything(image_files(exam), tmp_path / "out")
    source = pydicom.dcmread(next(exam.glob("*.dcm")))
    kinds: dict[str, set[str]] = {}
    for path in written:
        made = pydicom.dcmread(path)
        assert made.StudyInstanceUID == source.StudyInstanceUID
        assert {name: made[name].value for name in IDENTITY} == {name: source[name].value for name in IDENTITY}
        assert made.preamble == b"\0" * 128
        assert made.ContentDate == "20261121"
        assert made.ContentQualification == "RESEARCH"
        assert made.SeriesDescription.startswith("RESEARCH ")
        kinds.setdefault(made.Modality, set()).add(made.SeriesInstanceUID)
    assert {kind: len(series) for kind, series in kinds.items()} == {"SR": 1, "OT": 1, "SEG": 1}
    others = {pydicom.dcmread(path).SeriesInstanceUID for path in exam.glob("*.dcm")}
    assert not set.union(*kinds.values()) & others
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in written}) == len(written) == 9


@needs_dciodvfy
def test_dciodvfy_finds_no_error_and_no_warning(phantom, tmp_path):
    found = {path.name: verify(path) for path in everything(image_files(phantom), tmp_path)}
    assert found == {name: ([], []) for name in found}


def test_the_same_results_give_the_same_bytes_and_uids(phantom, tmp_path):
    images = image_files(phantom)
    first = everything(images, tmp_path / "first")
    again = everything(images, tmp_path / "again")
    assert [path.name for path in first] == [path.name for path in again]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


@pytest.mark.parametrize(
    "changed",
    [
        {"made": MADE + timedelta(seconds=1)},
        {"predictions": [*predictions()[:3], {**predictions()[3], "score": 0.0054322}]},
        {"heatmap_algorithm": replace(ALGORITHM, version="1.1")},
    ],
)
def test_other_results_have_other_uids_series_and_names(phantom, tmp_path, changed):
    images = image_files(phantom)
    first = everything(images, tmp_path)
    second = everything(images, tmp_path, **changed)
    assert not {path.name for path in first} & {path.name for path in second}
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        values = [{str(pydicom.dcmread(path)[keyword].value) for path in paths} for paths in (first, second)]
        assert not values[0] & values[1]


def test_file_names_hold_nothing_of_the_exam(phantom, tmp_path):
    images = [replace(image, name=f"../{number} <x>") for number, image in enumerate(image_files(phantom))]
    written = write(results(images, exam_id="../../etc/passwd"), tmp_path, threshold=0.5, segmentations=True)
    assert {path.parent for path in written} == {tmp_path}
    endings = {path.name[12:] for path in written}
    assert {"-report.dcm", "-heatmap-R-MLO-4.dcm", "-segmentation-L-CC-1.dcm"} < endings


def test_exams_of_png_files_have_no_study(tmp_path, phantom):
    import cv2

    path = tmp_path / "L_CC.png"
    cv2.imwrite(str(path), np.zeros((320, 260), np.uint16))
    first, *rest = image_files(phantom)
    images = [replace(first, path=str(path), sha256=files.sha256_file(path)), *rest]
    with pytest.raises(UsageError, match="is no DICOM file, so that there is no study"):
        write(replace(results(image_files(phantom)), images=images), tmp_path, threshold=0.5, segmentations=True)


@pytest.mark.parametrize(
    ("threshold", "heatmaps", "message"),
    [
        (None, True, "need a threshold"),
        (0.0, True, "above 0 to 1"),
        (1.5, True, "above 0 to 1"),
        (float("nan"), True, "above 0 to 1"),
        (0.5, False, "no heatmaps"),
    ],
)
def test_segmentations_need_a_threshold_and_heatmaps(phantom, tmp_path, threshold, heatmaps, message):
    found = results(image_files(phantom))
    if not heatmaps:
        found = replace(found, heatmaps={}, heatmap_algorithm=None)
    with pytest.raises(UsageError, match=message):
        write(found, tmp_path, threshold=threshold, segmentations=True)
    assert list(tmp_path.iterdir()) == []


def test_without_segmentations_no_threshold_is_needed(phantom, tmp_path):
    written = write(results(image_files(phantom)), tmp_path, threshold=None, segmentations=False)
    assert [path.name[13:] for path in written] == [
        "report.dcm",
        *(f"heatmap-{view}-{number}.dcm" for number, view in enumerate(("L-CC", "R-CC", "L-MLO", "R-MLO"), 1)),
    ]


def test_an_exam_without_heatmaps_has_a_report_alone(phantom, tmp_path):
    found = replace(results(image_files(phantom)), heatmaps={}, heatmap_algorithm=None, places={})
    assert [path.name[13:] for path in write(found, tmp_path, threshold=None, segmentations=False)] == ["report.dcm"]


def test_results_of_other_files_are_refused(exam, tmp_path):
    images = image_files(exam)
    found = results(images)
    place = found.places["image 0"]
    with pytest.raises(SpiculaError, match="not of the same run"):
        wrong = {**found.places, "image 0": replace(place, window=(0, 64, 0, 64))}
        write(replace(found, places=wrong), tmp_path, threshold=0.5, segmentations=True)
    top, bottom, left, right = place.window
    with pytest.raises(SpiculaError, match="its crop lies outside"):
        wrong = {**found.places, "image 0": replace(place, window=(top + 99, bottom + 99, left, right))}
        write(replace(found, places=wrong), tmp_path, threshold=0.5, segmentations=True)
    with pytest.raises(SpiculaError, match="several studies"):
        rewrite(exam / "L-CC.dcm", lambda image: image.update({"StudyInstanceUID": "1.2.3"}))
        everything(image_files(exam), tmp_path)
    with pytest.raises(SpiculaError, match="no valid SeriesInstanceUID"):
        rewrite(exam / "L-CC.dcm", lambda image: image.pop("SeriesInstanceUID"))
        everything(image_files(exam), tmp_path)
    with pytest.raises(SpiculaError, match="no frame 7"):
        everything([replace(image, frame=7) for image in images[1:]], tmp_path)
    (exam / "L-CC.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(SpiculaError, match="cannot be read"):
        write(found, tmp_path, threshold=0.5, segmentations=True)


def test_nothing_is_written_where_one_image_cannot_be_shown(exam, tmp_path):
    def cut(image: pydicom.Dataset) -> None:
        image.BitsAllocated, image.PixelData = 8, image.PixelData[: len(image.PixelData) // 2]
        image.BitsStored, image.HighBit = 8, 3  # the high bit cannot be below the bits stored

    rewrite(exam / "R-MLO.dcm", cut)
    with pytest.raises(SpiculaError, match=r"exam-1: its image image 3 \(R-MLO\) cannot be read: its high bit"):
        everything(image_files(exam), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def detail(found: Any) -> dict[str, Any]:
    """The exam in full, as far as it is asked for."""
    return {
        "exam_id": "exam-1",
        "status": "ok",
        "reasons": [],
        "images": {
            image.name: {
                "window_location": list(found.places[image.name].window),
                "mirrored": found.places[image.name].mirrored,
            }
            for image in found.images
        },
        "predictions": found.predictions,
        "steps": [
            {"stage": "crop", "status": "ok", "time": "2026-11-21T08:00:00Z"},
            {"stage": "classify", "status": "ok", "time": MADE.isoformat()},
            {"stage": "classify", "status": "failed", "time": "2026-11-22T08:00:00Z"},
            {"stage": "visualize", "status": "ok", "time": "2026-11-22T08:00:00Z"},
            {"stage": "heatmaps", "status": "ok", "time": None},
        ],
    }


def test_export_writes_what_the_ledger_tells(phantom, tmp_path):
    found = results(image_files(phantom))
    options: dict[str, Any] = {
        "algorithms": {"image-only": ALGORITHM},
        "heatmaps": found.heatmaps,
        "heatmap_algorithm": ALGORITHM,
        "threshold": 0.5,
        "segmentations": True,
    }
    exported = export(detail(found), found.images, tmp_path / "exported", **options)
    written = write(found, tmp_path / "written", threshold=0.5, segmentations=True)
    assert [path.name for path in exported] == [path.name for path in written]
    assert [path.read_bytes() for path in exported] == [path.read_bytes() for path in written]
    refused = {**detail(found), "predictions": [], "status": "refused", "reasons": ["view R-MLO is missing"]}
    with pytest.raises(SpiculaError, match=r"exam-1 has no scores .* view R-MLO is missing"):
        export(refused, found.images, tmp_path / "refused", **options)


def test_every_code_is_the_standards():
    mine = [value for value in vars(codes).values() if isinstance(value, Code)]
    mine += [
        code for table in (codes.FINDINGS, codes.PROBABILITIES, codes.SIDES, codes.VIEWS) for code in table.values()
    ]
    assert len(mine) > 20
    for code in mine:
        meanings = [found[code.value][0] for found in concepts[code.scheme_designator].values() if code.value in found]
        # where names of codes collide, the dictionary says of what kind each is: "Source (attribute)"
        assert code.meaning in {re.sub(r" \([a-z ]+\)$", "", meaning) for meaning in meanings}, code


def test_every_code_on_the_page_is_in_what_is_written(phantom, tmp_path):
    page = Path(__file__).parents[2] / "docs" / "exam-dicom.md"
    named = set(re.findall(r"\b\d{6,9}\b", page.read_text(encoding="utf-8")))
    written = "".join(str(pydicom.dcmread(path)) for path in everything(image_files(phantom), tmp_path))
    assert len(named) > 15
    assert {code for code in named if f"'{code}'" not in written} == set()
