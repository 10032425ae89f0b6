"""Intake of buckets: the exams of a folder, by their objects; what is fetched, and what is not fetched again."""

import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from exam_dicoms import CANARIES, VIEWS, mammogram, study
from hypothesis import given
from hypothesis import strategies as st
from small_exams import small_exam, small_exams

from spicula import files, index, stores
from spicula.errors import SpiculaError, UsageError
from spicula.exams import intake
from spicula.exams.intake import bucket
from spicula.exams.intake.listing import list_folder


@pytest.fixture(autouse=True)
def own_file_systems():
    """File systems that know the environment of this test."""
    stores.shared.cache_clear()


@pytest.fixture
def everything(tmp_path):
    """A folder with all that one may hold."""
    folder = tmp_path / "in"
    study(folder / "study", 1)
    study(folder / "half", 2, VIEWS[:3])
    mammogram(folder / "lost", "3.1", "L", "CC", StudyInstanceUID=None)
    shutil.copy(folder / "study/IM-L-CC", folder / "copy")
    small_exam(folder / "pictures ü #1", 1)
    small_exam(folder / "more", 2)
    for name in ("L_CC", "R_CC", "L_MLO", "R_MLO"):
        (folder / f"more/{name}.png").rename(folder / f"more/7_{name}.png")
    entry = {view: [f"7_{view.replace('-', '_')}"] for view in ("L-CC", "R-CC", "L-MLO", "R-MLO")}
    (folder / "more/list.json").write_text(json.dumps([{**entry, "horizontal_flip": "YES"}]))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n...")
    (folder / "L_CC.png.part").write_bytes(b"x")
    (folder / "more.zip").write_bytes(b"PK")
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "copy", folder / ".hidden/image")
    return folder


def as_found(found, place):
    """What was found, with paths as they are below the place."""
    exams = [
        (one.exam_id, one.refusal, one.notes, [(*vars(image).values(), image.path) for image in one.images])
        for one in found.exams
    ]
    return json.loads(json.dumps([exams, found.problems, found.index.to_pylist()]).replace(f"{place}/", ""))


def test_a_bucket_holds_what_the_folder_holds(object_store, everything):
    address = object_store.upload(everything, "some/in")
    object_store.put("some/in/console/", b"")  # as consoles make folders
    object_store.put("some/input/L_CC.png", b"of another prefix")
    found = intake.read(f"{address}/")
    assert as_found(found, address) == as_found(intake.read(everything), everything)
    assert {one.exam_id: len(one.images) for one in found.exams if one.refusal is None} == {
        "1.2.826.0.2.1": 4,
        "more/7": 4,
        "pictures ü #1": 4,
    }
    assert all(image.path.startswith(f"{address}/") for one in found.exams for image in one.images)
    assert [canary for canary in CANARIES if canary in repr(found)] == []
    assert index.place_of(found.index) == address
    with pytest.raises(UsageError, match=rf"the images of this Index are in {address}, .*copy them to a disk"):
        index.root_of(found.index)


def test_the_images_of_one_exam_can_lie_in_the_bucket_itself(s3_store, tmp_path):
    for path in small_exam(tmp_path / "a", 1).iterdir():
        s3_store.put(path.name, path.read_bytes())
    assert [exam.exam_id for exam in intake.read(s3_store.address).exams] == [s3_store.name]


def test_below_a_dicomdir_what_it_names_is_read(s3_store, tmp_path):
    from pydicom.fileset import FileSet

    study(tmp_path / "files", 1)
    medium = FileSet()
    for path in sorted((tmp_path / "files").iterdir()):
        medium.add(path)
    medium.write(tmp_path / "disk")
    medium._stage["t"].cleanup()  # else it warns when it is collected
    mammogram(tmp_path / "disk/EXTRA", "1.7", "L", "CC")
    found = intake.read(s3_store.upload(tmp_path / "disk", "disk"))
    assert len(found.exams[0].images) == 4
    assert "does not name 1 of the files" in {one["path"]: one["reason"] for one in found.problems}["DICOMDIR"]


# what is fetched


def test_what_did_not_change_is_not_fetched_again(s3_store, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    study(tmp_path / "in/study", 1)
    small_exams(tmp_path / "in", range(2))
    address, cache = s3_store.upload(tmp_path / "in", "in"), tmp_path / "known.parquet"
    s3_store.record()
    first = intake.read(address, known=intake.Known(cache))
    assert sorted(s3_store.fetched()) == sorted(s3_store.keys())
    assert list((tmp_path / "tmp").iterdir()) == []

    s3_store.record()
    assert intake.read(address, known=intake.Known(cache)).exams == first.exams
    assert s3_store.fetched() == []

    other = small_exam(tmp_path / "other", 9, ("L_CC",)) / "L_CC.png"
    s3_store.put("in/exam-0001/L_CC.png", other.read_bytes())
    s3_store.record()
    changed = {exam.exam_id: exam for exam in intake.read(address, known=intake.Known(cache)).exams}
    assert s3_store.fetched() == ["in/exam-0001/L_CC.png"]
    assert changed["exam-0001"].images[0].sha256 == files.sha256_file(other)
    assert changed["exam-0000"] == next(exam for exam in first.exams if exam.exam_id == "exam-0000")


def test_lists_are_read_again_only_when_there_is_something_that_they_may_name(s3_store, everything, tmp_path):
    address, cache = s3_store.upload(everything, "in"), tmp_path / "known.parquet"
    first = intake.read(address, known=intake.Known(cache))
    s3_store.record()
    assert intake.read(address, known=intake.Known(cache)).exams == first.exams
    assert s3_store.fetched() == []
    s3_store.put("in/more/list.json", b"[]")
    s3_store.record()
    exams = {exam.exam_id: exam for exam in intake.read(address, known=intake.Known(cache)).exams}
    assert s3_store.fetched() == ["in/more/list.json"]
    assert {image.mirrored for image in exams["more/7"].images} == {False}


def test_an_object_that_vanishes_under_way_is_a_problem_that_may_pass(s3_store, tmp_path):
    address = s3_store.upload(small_exams(tmp_path / "in", range(2)), "in")
    origin, known = intake.origin_of(address), intake.Known()
    listing = origin.listing()
    s3_store.remove("in/exam-0000/R_CC.png")
    found = intake.read_listing(origin, listing, known)
    assert [exam.refusal for exam in found.exams] == ["no R-CC", None]
    assert found.problems == [
        {"path": "exam-0000/R_CC.png", "reason": "cannot be opened: it is no longer there"},
    ]
    assert found.is_passing
    assert known.rows.num_rows == 7


@pytest.mark.parametrize("error", [OSError("s3://x cannot be read: TimeoutError"), KeyboardInterrupt()])
def test_what_was_fetched_before_a_failure_is_kept(s3_store, tmp_path, monkeypatch, error):
    address, cache = s3_store.upload(small_exams(tmp_path / "in", range(3)), "in"), tmp_path / "known.parquet"
    fetched = stores.fetched

    @contextmanager
    def failing(address, suffix=""):
        if address.endswith("exam-0002/R_CC.png"):
            raise error
        with fetched(address, suffix) as file:
            yield file

    monkeypatch.setattr(stores, "fetched", failing)
    with pytest.raises((SpiculaError, KeyboardInterrupt)) as failure:
        intake.read(address, known=intake.Known(cache))
    if isinstance(error, OSError):
        assert str(failure.value).endswith("what was read is kept, so that the same command goes on")
    monkeypatch.undo()
    s3_store.record()
    found = intake.read(address, known=intake.Known(cache))
    assert [exam.refusal for exam in found.exams] == [None] * 3
    assert "in/exam-0002/R_CC.png" in s3_store.fetched()
    assert not any("exam-0000" in key for key in s3_store.fetched())


def test_a_list_that_cannot_be_read_ends_the_intake_and_what_was_fetched_is_kept(s3_store, everything, tmp_path):
    address = s3_store.upload(everything, "in")
    origin, cache = intake.origin_of(address), tmp_path / "known.parquet"
    listing = origin.listing()
    s3_store.remove("in/more/list.json")
    with pytest.raises(SpiculaError, match=rf"^{address}: more/list.json cannot be opened: it is no longer there"):
        intake.read_listing(origin, listing, intake.Known(cache))
    s3_store.record()
    assert len(intake.read(address, known=intake.Known(cache)).exams) == 4
    assert s3_store.fetched() == []


# names


NAMES = st.sampled_from(["a", "a-b", "a b", "a.x", "A", "é", "b", ".c", "x.tmp", "__MACOSX"])
TREES = st.sets(st.lists(NAMES, min_size=1, max_size=3).map(tuple), max_size=12)


@given(TREES)
def test_objects_are_listed_like_files(tmp_path_factory, tree):
    tree = {path for path in tree if not any(path == other[: len(path)] for other in tree - {path})}
    root = tmp_path_factory.mktemp("tree")
    for path in tree:
        root.joinpath(*path).parent.mkdir(parents=True, exist_ok=True)
        root.joinpath(*path).write_bytes(b"content")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "objects", lambda place: iter([("/".join(path), 7, "1") for path in tree]))
        found = bucket.Bucket("s3://bucket/in").listing()
    expected = list_folder(root)
    assert found.paths == expected.paths
    assert sorted(found.problems, key=repr) == sorted(expected.problems, key=repr)


def test_what_can_be_no_file_is_a_problem(monkeypatch):
    there = [
        ("a//b", 5, "1"),
        ("/a", 5, "1"),
        ("huge", 2**40, "1"),
        ("folder/", 0, "1"),
        ("whole", 5, "1"),
        ("odd", 5, ""),
    ]
    monkeypatch.setattr(stores, "objects", lambda place: iter(there))
    found = bucket.Bucket("s3://bucket").listing()
    assert found.paths == ["odd", "whole"]
    assert found.is_fresh.tolist() == [True, False]  # without a version nobody can say whether it changed
    assert {one["path"]: one["reason"].split()[0] for one in found.problems} == {
        "a//b": "has",
        "/a": "has",
        "huge": "has",
    }


# Indexes


def test_an_index_may_lie_in_a_bucket_and_its_images_too(s3_store, tmp_path):
    address = s3_store.upload(small_exams(tmp_path / "in", range(2)), "in")
    found = intake.read(address)
    index.write(tmp_path / "index.parquet", found.index)
    s3_store.put("indexes/index.parquet", (tmp_path / "index.parquet").read_bytes())
    s3_store.record()
    assert intake.read(tmp_path / "index.parquet").exams == found.exams
    assert s3_store.fetched() == []
    assert intake.read(f"{s3_store.address}/indexes/index.parquet").exams == found.exams
    s3_store.remove("in/exam-0001/L_CC.png")
    refusals = [exam.refusal for exam in intake.read(tmp_path / "index.parquet").exams]
    assert refusals == [None, "L_CC (L-CC): is not there"]


def test_digests_that_an_index_of_objects_lacks_are_computed_once(s3_store, tmp_path):
    found = intake.read(s3_store.upload(small_exams(tmp_path / "in", range(1)), "in"))
    column = found.index.schema.get_field_index("sha256")
    without = found.index.set_column(column, index.SCHEMA.field("sha256"), pa.nulls(4, pa.string()))
    index.write(tmp_path / "index.parquet", without)
    cache = tmp_path / "known.parquet"
    for expected in (4, 0):
        s3_store.record()
        assert intake.read(tmp_path / "index.parquet", known=intake.Known(cache)).exams == found.exams
        assert len(s3_store.fetched()) == expected


def test_an_index_in_a_bucket_that_is_none(s3_store):
    with pytest.raises(UsageError, match=rf"^no Index at {s3_store.address}/index.parquet"):
        intake.read(f"{s3_store.address}/index.parquet")
    s3_store.put("index.parquet", b"PAR1")
    with pytest.raises(SpiculaError, match=rf"^{s3_store.address}/index.parquet is not a Parquet file"):
        intake.read(f"{s3_store.address}/index.parquet")


# what is no source


def test_a_prefix_without_exams(s3_store):
    s3_store.put("in/noise", b"noise")
    with pytest.raises(
        UsageError, match=rf"^no exams in {s3_store.address}/in; .*1 files cannot be used, the first noise"
    ):
        intake.read(f"{s3_store.address}/in")
    with pytest.raises(UsageError, match=rf"^no exams in {s3_store.address}/nothing; it should hold"):
        intake.read(f"{s3_store.address}/nothing")


def test_facts_of_an_address_have_a_file_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    places = {intake.place("/ws", source) for source in ("s3://b/in", "s3://b/in2", "gs://b/in", Path("in"))}
    assert len(places) == 4
    assert intake.place("/ws", "s3://b/in/") == intake.place("/ws", "s3://b/in")
    assert intake.place("s3://b/ws", "s3://b/in").parent == tmp_path / "spicula/intake"
