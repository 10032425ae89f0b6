"""The Structured Report: read back with highdicom, every score says what, where, how likely, by what, from which."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_results import ALGORITHM, BUNDLE, DIGEST, image_files, needs_dciodvfy, predictions, results, verify

import spicula
from spicula.errors import SpiculaError
from spicula.exams.outputs.dicom import codes, write
from spicula.phantoms import make_exams

hd = pytest.importorskip("highdicom", reason="needs highdicom: the extra exams")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = make_exams(tmp_path_factory.mktemp("phantom"), 1, seed=3, size=(320, 260), jobs=1)
    return image_files(next(folder.glob("phantom-*")))


def read_report(images: list[Any], to: Path, **values: Any) -> Any:
    found = replace(results(images), heatmaps={}, heatmap_algorithm=None, **values)
    (path,) = write(found, to, threshold=None, segmentations=False)
    return hd.sr.srread(path)


def test_every_score_says_what_where_how_likely_by_what_and_from_which_images(images, tmp_path):
    report = read_report(images, tmp_path)
    assert report.SOPClassUID == pydicom.uid.ComprehensiveSRStorage
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    groups = report.content.get_image_measurement_groups()
    told = []
    for group in groups:
        (measured,) = group.get_measurements()
        assert (measured.unit.value, measured.unit.scheme_designator) == ("%", "UCUM")
        site = group.finding_sites[0]
        side = site.ContentSequence[0].value
        told.append((group.finding_type.meaning, site.value.meaning, side.meaning, measured.name.value, measured.value))
    assert told == [
        ("Benign", "Breast", "Left", "111012", 12.34567),
        ("Benign", "Breast", "Right", "111012", 2.12345),
        ("Malignant", "Breast", "Left", "111047", 73.12345),
        ("Malignant", "Breast", "Right", "111047", 0.54321),
    ]
    of = {image.view: str(pydicom.dcmread(image.path).SOPInstanceUID) for image in images}
    for group, letter in zip(groups, "LRLR", strict=True):
        referenced = [item.referenced_sop_instance_uid for item in group.source_images]
        assert referenced == [of[f"{letter}-CC"], of[f"{letter}-MLO"]]
    assert {uid for _, _, uid, _ in report.get_evidence()} == set(of.values())


def test_the_algorithm_is_identified(images, tmp_path):
    report = read_report(images, tmp_path)
    for group in report.content.get_image_measurement_groups():
        items = hd.sr.utils.find_content_items(group[0], relationship_type=hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD)
        texts = [(item.name.meaning, item.value) for item in items if item.value_type.value == "TEXT"]
        assert texts == [
            ("Algorithm Name", "four-view screening classifier"),
            ("Algorithm Version", "1.0"),
            ("Algorithm Parameters", f"sha256 {DIGEST}"),
            ("Algorithm Parameters", f"Spicula {spicula.__version__}"),
            ("Algorithm Parameters", "precision fp32"),
            ("Algorithm Parameters", f"bundle sha256 {BUNDLE}"),
        ]


def test_a_model_that_nobody_describes_goes_by_its_name_and_digest(images, tmp_path):
    report = read_report(images, tmp_path, predictions=predictions("my-model", "ab" * 32))
    name, version = (pydicom.sr.coding.Code(*one) for one in (("111001", "DCM", ""), ("111003", "DCM", "")))
    names = hd.sr.utils.find_content_items(report, name=name, recursive=True)
    versions = hd.sr.utils.find_content_items(report, name=version, recursive=True)
    assert {item.value for item in names} == {"my-model"}
    assert {item.value for item in versions} == {"sha256 abababababab"}


def test_several_models_have_groups_each(images, tmp_path):
    both = [*predictions("image-only"), *predictions("image-and-heatmaps")]
    groups = read_report(images, tmp_path, predictions=both).content.get_image_measurement_groups()
    assert len(groups) == 8
    assert len({group.tracking_uid for group in groups}) == 8
    assert groups[7].tracking_identifier == "image-and-heatmaps: right, malignant"


def test_scores_of_single_images_refer_to_their_view(images, tmp_path):
    one = {**predictions()[2], "side": "R-MLO"}
    (group,) = read_report(images, tmp_path, predictions=[one]).content.get_image_measurement_groups()
    (source,) = group.source_images
    assert source.referenced_sop_instance_uid == pydicom.dcmread(images[3].path).SOPInstanceUID
    assert group.finding_sites[0].ContentSequence[0].value.meaning == "Right"


def test_it_says_that_it_is_research_and_no_readers_finding(images, tmp_path):
    report = read_report(images, tmp_path)
    comments = [item.value for item in hd.sr.utils.find_content_items(report, name=codes.COMMENT, recursive=True)]
    assert len(comments) == 1 + 4  # the report, and every score
    assert all(spicula.RESEARCH_NOTICE in comment and "not a finding of a reader" in comment for comment in comments)
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert report.content.get_observer_contexts()[0].observer_identifying_attributes.manufacturer_name == "Spicula"


def test_the_library_names_every_image_with_its_side_and_view(images, tmp_path):
    report = read_report(images, tmp_path)
    library = hd.sr.utils.find_content_items(report, name=codes.IMAGE_LIBRARY, recursive=True)[0]
    entries = hd.sr.utils.find_content_items(library, name=codes.SOURCE, recursive=True)
    told = [tuple(item.value.meaning for item in entry.ContentSequence) for entry in entries]
    assert told == [
        ("Left", "cranio-caudal"),
        ("Right", "cranio-caudal"),
        ("Left", "medio-lateral oblique"),
        ("Right", "medio-lateral oblique"),
    ]


@pytest.mark.parametrize(("field", "value"), [("target", "subtype"), ("side", "both")])
def test_what_has_no_code_is_refused(images, tmp_path, field, value):
    with pytest.raises(SpiculaError, match=f"no DICOM code for the score of image-only .*{value}"):
        read_report(images, tmp_path, predictions=[{**predictions()[0], field: value}])


@pytest.mark.parametrize("score", [0.0, 1.0, 1e-7, 0.9999999, 0.3333333])
def test_scores_keep_their_seven_digits(images, tmp_path, score):
    report = read_report(images, tmp_path, predictions=[{**predictions()[0], "score": score}])
    (group,) = report.content.get_image_measurement_groups()
    assert group.get_measurements()[0].value / 100 == pytest.approx(score, abs=1e-12)


@needs_dciodvfy
def test_names_of_models_in_any_script_and_of_any_length_are_no_hindrance(images, tmp_path):
    algorithm = replace(ALGORITHM, name="Röntgen " * 20, version="β")
    found = results(images, algorithms={"image-only": algorithm}, heatmap_algorithm=algorithm)
    for path in write(found, tmp_path, threshold=0.5, segmentations=True):
        assert verify(path)[0] == []
