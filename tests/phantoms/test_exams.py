import json
import shutil
from pathlib import Path

import pytest

from spicula.errors import SpiculaError, UsageError
from spicula.files import sha256_file
from spicula.phantoms import exams, make_exams

SIZE = (320, 260)  # as in conftest


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_an_exam_is_four_views_and_the_truth(phantoms):
    assert sorted(digests(phantoms)) == sorted(
        f"phantom-0003-{number:05d}/{name}"
        for number in range(1, 7)
        for name in ("L-CC.dcm", "L-MLO.dcm", "R-CC.dcm", "R-MLO.dcm", "exam.json")
    )
    kinds = set()
    for path in phantoms.rglob("exam.json"):
        truth = json.loads(path.read_text())
        assert "SYNTHETIC" in truth["notice"]
        assert truth["exam_id"] == path.parent.name
        by_side = {}
        for image in truth["images"]:
            assert image["file"] == f"{image['laterality']}-{image['view']}.dcm"
            assert image["bytes"] == (path.parent / image["file"]).stat().st_size
            lesions = {(one["lesion"], one["kind"], one["pathology"]) for one in image["lesions"]}
            assert by_side.setdefault(image["laterality"], lesions) == lesions  # the same in both views
            kinds |= {one["pathology"] for one in image["lesions"]}
            if not lesions:
                assert image["birads"] == "1"
    assert kinds == {"benign", "malignant"}


def test_the_same_settings_give_the_same_files_in_any_number_of_processes(phantoms, tmp_path):
    make_exams(tmp_path / "two", 3, seed=3, size=SIZE, jobs=2)
    expected = {name: digest for name, digest in digests(phantoms).items() if int(name[13:18]) <= 3}
    assert digests(tmp_path / "two") == expected


def test_what_is_whole_is_not_made_again_and_what_is_not_ends_the_same(phantoms, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(phantoms, folder)
    # as killed between two images; with half an image; with the truth cut off; and an exam that never began
    (folder / "phantom-0003-00002" / "exam.json").unlink()
    (folder / "phantom-0003-00002" / "R-MLO.dcm").unlink()
    half = folder / "phantom-0003-00003" / "L-CC.dcm"
    half.write_bytes(half.read_bytes()[:50_000])
    (folder / "phantom-0003-00004" / "exam.json").write_text('{"format": "spicula')
    shutil.rmtree(folder / "phantom-0003-00005")
    before = times(folder)
    make_exams(folder, 6, seed=3, size=SIZE, jobs=1)
    assert digests(folder) == digests(phantoms)
    untouched = {name for name, time in times(folder).items() if before.get(name) == time}
    assert untouched == {name for name in digests(phantoms) if name[13:18] in ("00001", "00006")}


def test_other_settings_replace_an_exam_and_other_seeds_stand_beside_it(tmp_path):
    make_exams(tmp_path, 1, size=SIZE, jobs=1)
    first = digests(tmp_path)
    make_exams(tmp_path, 1, size=SIZE, jobs=1, density="D")
    second = digests(tmp_path)
    assert all(second[name] != first[name] for name in first)
    assert json.loads((tmp_path / "phantom-0000-00001" / "exam.json").read_text())["density"] == "D"
    make_exams(tmp_path, 1, seed=1, size=SIZE, jobs=1, density="D")
    assert {name: digest for name, digest in digests(tmp_path).items() if "-0000-" in name} == second
    assert len(digests(tmp_path)) == 10


def test_an_interrupted_exam_has_no_truth(tmp_path, monkeypatch):
    make_exams(tmp_path, 1, size=SIZE, jobs=1)
    written = []

    def stop_at_the_third(path, *args, **kwargs):
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        return "2.25.1"

    monkeypatch.setattr(exams, "write_dicom", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        make_exams(tmp_path, 1, size=SIZE, jobs=1, prevalence=0.9)
    # neither the new truth, nor the old one beside new images
    assert not (tmp_path / "phantom-0000-00001" / "exam.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exams": 0}, "ask for at least 1"),
        ({"seed": -1}, "a seed is 0 or more"),
        ({"size": (100, 100)}, "rows and columns are 128 to 4096"),
        ({"size": (1024, 300)}, "for 1024 rows, columns are 717 to 2048"),
        ({"jobs": 0}, "ask for at least 1"),
        ({"prevalence": 1.5}, "it is a share, 0 to 1"),
        ({"prevalence": float("nan")}, "it is a share, 0 to 1"),
        ({"density": "E"}, "it is one of A, B, C, D"),
    ],
)
def test_impossible_arguments_are_usage_errors(tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        make_exams(tmp_path / "none", **{"exams": 1, **arguments})
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpiculaError, match=r"cannot write .*file"):
        make_exams(tmp_path / "file", 1, size=SIZE, jobs=1)
