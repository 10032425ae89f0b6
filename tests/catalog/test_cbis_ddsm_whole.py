"""The whole of CBIS-DDSM: the official tables, with a small image in place of every one of its 10,239 files."""

import shutil
from collections import Counter

import numpy as np
import pytest
from cbis_ddsm_maker import DESCRIPTIONS, film, mask, uid, write_dicom

from spicula import catalog
from spicula.catalog.cbis_ddsm import tables


@pytest.fixture(scope="module")
def archive(test_data, tmp_path_factory):
    """The archive in the layout of the Imaging Data Commons: a folder a series, names that say nothing."""
    root = tmp_path_factory.mktemp("cbis-ddsm")
    for name in tables.TABLES:
        shutil.copy(test_data / "cbis-ddsm" / name, root / name)
    lesions = tables.read({name: root / name for name in tables.TABLES}).lesions
    for lesion in {lesion.case: lesion for lesion in lesions}.values():
        # both abnormalities of a view show one film
        write(root, lesion.image, "full", film("".join(lesion.view), 20, 12), lesion.case)
    for lesion in lesions:
        write(root, lesion.rois[0], "crop", film(lesion.name, 5, 4), lesion.name)
        write(root, lesion.rois[-1], "mask", mask(20, 12), lesion.name)
    return root


def write(root, place, kind: str, pixels: np.ndarray, patient: str) -> None:
    instance = uid(place.series, kind)
    write_dicom(
        root / "cbis_ddsm" / place.series / f"{instance[-8:]}.dcm",
        pixels,
        PatientID=patient,
        StudyInstanceUID=place.study,
        SeriesInstanceUID=place.series,
        SOPInstanceUID=instance,
        SeriesDescription=DESCRIPTIONS[kind],
    )


@pytest.mark.slow
def test_the_whole_archive_at_the_level_of_images(archive, tmp_path, capsys):
    reading = catalog.index_dataset("cbis-ddsm", archive, tmp_path)
    assert reading.rejected.to_pylist() == []
    rows = reading.index.to_pylist()
    assert len(rows) == catalog.get("cbis-ddsm").expected["images"] == 3103
    assert len({row["patient_id"] for row in rows}) == 1566
    # 1,375 by the rows of their own table alone
    assert Counter(row["label"] for row in rows) == {"malignant": 1391, "benign": 1712}
    assert Counter(row["split"] for row in rows) == {"train": 2508, "test": 595}
    lesions = [lesion for row in rows for lesion in row["lesions"]]
    assert {lesion["kind"] for lesion in lesions} == {"mask"}
    assert len({lesion["mask_path"] for lesion in lesions}) == 3568
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["patient_id"], set()).add(row["split"])
    assert max(len(of_person) for of_person in sides.values()) == 1
    said = capsys.readouterr().err
    assert "and in the test set of the other: 31 (P_00016, P_00041, " in said
    assert "test images of theirs that are on the training side now: 50\n" in said


@pytest.mark.slow
def test_the_whole_archive_at_the_level_of_lesions_as_published(archive, tmp_path):
    options = {"level": "lesion", "official_split_as_is": True}
    reading = catalog.index_dataset("cbis-ddsm", archive, tmp_path, options)
    assert reading.rejected.to_pylist() == []
    rows = reading.index.to_pylist()
    published = Counter((row["image_id"].partition("-")[0], row["split"]) for row in rows)
    assert published == {
        ("Mass", "train"): 1318,
        ("Mass", "test"): 378,
        ("Calc", "train"): 1546,
        ("Calc", "test"): 326,
    }
    assert Counter(row["label"] for row in rows) == {"malignant": 1457, "benign": 2111}
