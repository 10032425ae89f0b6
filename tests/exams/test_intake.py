"""Intake of an Index: which images make which exam, what is refused and why."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula import files, index
from spicula.errors import SpiculaError, UsageError
from spicula.exams import intake
from spicula.exams.intake import scope
from spicula.exams.intake.grouping import group
from spicula.exams.types import VIEWS


def row(view, exam="exam", name=None, **columns):
    """A row of an Index; the image's id, path and digest follow from its name."""
    side, _, angle = view.partition("-")
    name = name or f"{exam}/{view}"
    return {
        "dataset": "cmmd",
        "image_id": name,
        "exam_id": exam,
        "path": f"{name}.png",
        "modality": "MG",
        "laterality": side or None,
        "view": angle or None,
        "sha256": files.sha256_json([name]),
        **columns,
    }


@pytest.fixture
def read(tmp_path):
    """Return a function that writes an Index of rows, with files, and takes its exams in."""

    def make(*rows, without=(), **options):
        for one in rows:
            path = tmp_path / "images" / one["path"]
            if one["path"] not in without:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(one["image_id"].encode())
        index.write(tmp_path / "index.parquet", index.from_rows(rows, tmp_path / "images"))
        return intake.read(tmp_path / "index.parquet", **options)

    return make


def only(found):
    (exam,) = found.exams
    return exam


def test_views_come_in_their_order_with_all_that_a_worker_needs(read, tmp_path):
    exam = only(read(*(row(view) for view in reversed(VIEWS))))
    assert (exam.exam_id, exam.refusal, exam.notes) == ("exam", None, ())
    assert [image.view for image in exam.images] == list(VIEWS)
    first = exam.images[0]
    assert first.name == "L-CC"
    assert first.path == str(tmp_path / "images/exam/L-CC.png")
    assert (first.sha256, first.frame, first.mirrored) == (files.sha256_json(["exam/L-CC"]), 0, None)


def test_exams_come_in_the_order_of_their_first_rows(read):
    rows = [row(view, exam) for view in VIEWS for exam in ("b", "a", "c")]
    found = read(*rows)
    assert [exam.exam_id for exam in found.exams] == ["b", "a", "c"]
    assert all(exam.refusal is None and len(exam.images) == 4 for exam in found.exams)
    assert len(found.index) == 12
    assert found.problems == []


def test_several_images_of_a_view_go_by_their_ids_or_by_the_order_of_their_list(read):
    more = [row("R-CC", name="exam/z"), row("R-CC", name="exam/b")]
    names = [image.name for image in only(read(*(row(view) for view in VIEWS), *more)).images]
    assert names == ["L-CC", "R-CC", "b", "z", "L-MLO", "R-MLO"]
    listed = [{**one, "dataset": "exam-folders"} for one in [*(row(view) for view in VIEWS), *more]]
    names = [image.name for image in only(read(*listed)).images]
    assert names == ["L-CC", "R-CC", "z", "b", "L-MLO", "R-MLO"]


def test_who_says_that_an_exam_is_mirrored(read):
    rows = [row(view, flags=["mirrored"]) for view in VIEWS]
    assert {image.mirrored for image in only(read(*rows)).images} == {True}
    rows = [row(view, dataset="exam-folders") for view in VIEWS]
    assert {image.mirrored for image in only(read(*rows)).images} == {False}


@pytest.mark.parametrize("there", [VIEWS[:3], VIEWS[1:], VIEWS[1:3], VIEWS[:1]])
def test_missing_views_are_refused_by_name(read, there):
    missing = ", ".join(view for view in VIEWS if view not in there)
    rows = [row(view) for view in there] + [row(view, "whole") for view in VIEWS]
    exam, whole = read(*rows).exams
    assert exam.refusal == f"no {missing}"
    assert [image.view for image in exam.images] == list(there)
    assert whole.refusal is None
    exam, _ = read(*rows, single_image=True).exams
    assert exam.refusal is None


def test_every_flag_is_decided():
    assert {*scope.ASIDE, *scope.NOTED, "overlay", "mirrored"} == set(index.FLAGS)


@pytest.mark.parametrize("flag", scope.ASIDE)
def test_images_of_another_kind_are_set_aside_and_stand_in_for_no_view(read, flag):
    rows = [row(view) for view in VIEWS[:3]] + [row("R-MLO", flags=[flag])]
    exam = only(read(*rows))
    assert exam.refusal == f"no R-MLO (set aside: {scope.ASIDE[flag]})"
    assert exam.notes == (f"R-MLO (R-MLO) is set aside: {scope.ASIDE[flag]}",)
    exam = only(read(*rows, row("R-MLO", name="exam/other")))
    assert exam.refusal is None
    assert [image.name for image in exam.images] == ["L-CC", "R-CC", "L-MLO", "other"]
    assert exam.notes == (f"R-MLO (R-MLO) is set aside: {scope.ASIDE[flag]}",)


@pytest.mark.parametrize("flag", scope.NOTED)
def test_some_flags_are_noted_alone(read, flag):
    exam = only(read(*(row(view, flags=[flag, "overlay"]) for view in VIEWS)))
    assert exam.refusal is None
    assert len(exam.images) == len(exam.notes) == 4
    assert all(scope.NOTED[flag] in note for note in exam.notes)


def test_another_modality_gets_no_score(read):
    exam = only(read(*(row(view, modality="MR") for view in VIEWS)))
    assert exam.images == ()
    assert exam.refusal == f"no {', '.join(VIEWS)} (set aside: no mammogram: its modality is MR)"
    exam = only(read(*(row(view, modality="MR") for view in VIEWS), single_image=True))
    assert exam.refusal is not None
    exam = only(read(*(row(view, modality="Odd\nvalue") for view in VIEWS)))
    assert "Odd" not in exam.refusal


@pytest.mark.parametrize("modality", ["MG", "CR", "DX", "RG", "OT", None])
def test_radiographs_and_unknown_modalities_are_taken(read, modality):
    assert only(read(*(row(view, modality=modality) for view in VIEWS))).refusal is None


def test_views_that_are_not_standard_are_set_aside(read):
    exam = only(read(*(row(view) for view in VIEWS), row("L-XCCL")))
    assert exam.refusal is None
    assert exam.notes == ("L-XCCL is set aside: of the view XCCL, not CC or MLO",)


def test_rows_without_exam_side_or_view_are_problems(read):
    lost = [
        row("L-CC", None, name="no exam"),
        row("-CC", name="no side"),
        row("L", name="no view"),
        row("", name="neither"),
    ]
    found = read(*(row(view) for view in VIEWS), *lost)
    assert [(problem["path"], problem["reason"]) for problem in found.problems] == [
        ("no exam.png", "belongs to no exam"),
        ("no side.png", "names no side"),
        ("no view.png", "names no view"),
        ("neither.png", "names no side and no view"),
    ]
    assert only(found).notes == (
        "no_side is set aside: it names no side",
        "no_view is set aside: it names no view",
        "neither is set aside: it names no side and no view",
    )
    assert only(found).refusal is None


def test_images_of_two_patients_are_refused(read):
    patients = ["a", "a", None, "b"]
    rows = [row(view, patient_id=patient) for view, patient in zip(VIEWS, patients, strict=True)]
    assert only(read(*rows)).refusal == "its images are of 2 patients"
    rows = [row(view, patient_id=patient) for view, patient in zip(VIEWS, ["a", "a", None, "a"], strict=True)]
    assert only(read(*rows)).refusal is None


def test_one_exam_of_two_datasets_is_refused(read):
    rows = [row(view, dataset=dataset) for view, dataset in zip(VIEWS, ["cmmd"] * 3 + ["dicom"], strict=True)]
    assert only(read(*rows)).refusal == "its images are of 2 datasets"


def test_one_image_under_two_views_is_refused(read):
    rows = [row(view) for view in VIEWS[:3]] + [row("R-MLO", sha256=files.sha256_json(["exam/L-MLO"]))]
    assert only(read(*rows)).refusal == "L-MLO and R-MLO are the same image: a side or a view is named wrongly"
    frames = [row(view, sha256="0" * 64, frame=number) for number, view in enumerate(VIEWS)]
    assert only(read(*frames)).refusal is None


def test_a_copy_within_a_view_is_used_once(read):
    copy = row("R-MLO", name="exam/copy", sha256=files.sha256_json(["exam/R-MLO"]))
    exam = only(read(*(row(view) for view in VIEWS), copy))
    assert exam.refusal is None
    assert [image.name for image in exam.images] == list(VIEWS)
    assert exam.notes == ("copy (R-MLO) is set aside: a copy of R-MLO",)


def test_a_missing_file_refuses_its_exam_alone(read):
    rows = [row(view, exam) for exam in ("a", "b") for view in VIEWS]
    found = read(*rows, without=["a/L-CC.png"])
    assert [exam.refusal for exam in found.exams] == ["L-CC (L-CC): is not there", None]
    assert found.problems == [{"path": "a/L-CC.png", "reason": "is not there"}]


def test_an_index_none_of_whose_files_is_there_is_no_hundred_thousand_refusals(read, tmp_path):
    rows = [row(view) for view in VIEWS]
    with pytest.raises(SpiculaError, match=r"none of the 4 files of .*index\.parquet is in .*mounted"):
        read(*rows, without=[one["path"] for one in rows])


def test_digests_that_the_index_lacks_are_computed_once(read, tmp_path):
    rows = [row(view, sha256=None) for view in VIEWS]
    path = tmp_path / "images/exam/L-CC.png"
    cache = tmp_path / "known.parquet"

    def digest(**options):
        for file in path.parent.iterdir():
            os.utime(file, (1e9, 1e9))
        found = intake.read(tmp_path / "index.parquet", known=intake.Known(cache), **options)
        return only(found).images[0].sha256

    read(*rows)
    first = digest()
    assert first == files.sha256_file(path)
    path.write_bytes(b"EXAM/l-cc")  # of the same size and, by then, time: only who reads it again sees it
    assert digest() == first
    path.write_bytes(b"other size")
    assert digest() == files.sha256_file(path)


def test_names_are_plain_text_and_unique(read):
    names = ["exam/a b\n<i>", "exam/sub/a b\n<i>", "exam/é", "exam/" + "x" * 200]
    rows = [row(view, name=name, path=f"{at}.png") for at, (view, name) in enumerate(zip(VIEWS, names, strict=True))]
    names = [image.name for image in only(read(*rows)).images]
    assert names == ["a_b__i_", "a_b__i__2", "é", "x" * 100]


def test_what_is_no_source_is_said(tmp_path, read):
    with pytest.raises(UsageError, match="nothing at"):
        intake.read(tmp_path / "missing")
    with pytest.raises(UsageError, match="no Index at"):
        intake.read(tmp_path / "missing.parquet")
    with pytest.raises(UsageError, match=r"expected a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"):
        intake.read("https://bucket.example/exams")
    (tmp_path / "exams.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match="neither a folder nor an Index"):
        intake.read(tmp_path / "exams.zip")
    with pytest.raises(UsageError, match="names no exams: none of its 1 images has an exam_id"):
        read(row("L-CC", None, name="alone"))


FLAGS = st.lists(st.sampled_from(index.FLAGS), max_size=2, unique=True)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "exam_id": st.sampled_from(["a", "b", None]),
            "laterality": st.sampled_from(["L", "R", "L", "R", None]),
            "view": st.sampled_from(["CC", "MLO", "CC", "MLO", "XCCL", None]),
            "flags": FLAGS | st.just([]),
            "modality": st.sampled_from(["MG", "MG", "US", None]),
            "sha256": st.sampled_from([character * 64 for character in "0123456789abcdef"]),
            "name": st.sampled_from(["x", "y", "x_2", "z"]),
            "dataset": st.sampled_from(["dicom", "exam-folders"]),
        }
    ),
    max_size=12,
)


@given(ROWS, st.booleans())
def test_no_image_is_lost_and_none_is_used_twice(tmp_path_factory, drawn, single_image):
    rows = [
        {
            **{key: value for key, value in one.items() if key != "name"},
            "image_id": f"{at}/{one['name']}",
            "path": f"{at}",
        }
        for at, one in enumerate(drawn)
    ]
    table = index.from_rows(rows, tmp_path_factory.getbasetemp())
    exams, problems = group(table, single_image=single_image, unreadable={}, remarks={})
    assert [exam.exam_id for exam in exams] == list(dict.fromkeys(r["exam_id"] for r in rows if r["exam_id"]))
    lost = {problem["path"] for problem in problems}
    for exam in exams:
        mine = [r for r in rows if r["exam_id"] == exam.exam_id]
        used = [image.path.rpartition("/")[2] for image in exam.images]
        assert len(set(used)) == len(used)
        assert len({image.name for image in exam.images}) == len(used)
        assert [VIEWS.index(image.view) for image in exam.images] == sorted(VIEWS.index(i.view) for i in exam.images)
        aside = sum("is set aside" in note for note in exam.notes)
        assert len(used) + aside >= len(mine)  # an image can be set aside for two reasons
        for r in mine:
            fit = r["laterality"] and r["view"] in ("CC", "MLO") and r["modality"] != "US"
            fit = fit and not set(r["flags"]) & set(scope.ASIDE)
            assert (r["path"] in lost) == (r["laterality"] is None or r["view"] is None)
            assert fit or r["path"] not in used
        there = {image.view for image in exam.images}
        if not (there if single_image else there == set(VIEWS)):
            assert exam.refusal is not None
        if exam.refusal is None:
            assert len({r["dataset"] for r in mine}) == 1
            assert len({(r["sha256"]) for r in mine if r["path"] in used}) == len(used)
