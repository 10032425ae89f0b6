"""Conversions that go on: nothing is made twice, a kill costs little, and damage is mended."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small_archive import grey, pixels_of, save_png

from spicula import files, index
from spicula.convert import Settings, convert
from spicula.errors import SpiculaError, UsageError

RAW = Settings.of()
COUNT = "Path(path).with_suffix('.read').touch()"


def read_so_far(root):
    """Images that a worker of `worker_that(COUNT)` decoded; forgets them."""
    found = sorted(path.with_suffix(".png").relative_to(root).as_posix() for path in root.rglob("*.read"))
    for path in root.rglob("*.read"):
        path.unlink()
    return found


def tree(folder):
    """Everything in an output folder, by path, but what Spicula keeps for itself."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".spicula" not in path.parts
    }


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


def test_nothing_is_decoded_twice(twenty, tmp_path, worker_that, root):
    worker_that(COUNT)
    first = convert(twenty, tmp_path / "out", RAW)
    assert len(read_so_far(root)) == 20
    assert first.made == 20
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    again = convert(twenty, tmp_path / "out", RAW)
    assert read_so_far(root) == []
    assert again.made == 0
    assert index.digest(again.index) == index.digest(first.index)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")} == before


def test_only_what_is_new_or_changed_is_made(twenty, tmp_path, worker_that, root, indexed):
    worker_that(COUNT)
    convert(twenty, tmp_path / "out", RAW)
    read_so_far(root)
    save_png(root / "a/i00.png", grey(seed=100))
    save_png(root / "a/new.png", grey(seed=101))
    rows = [{"path": path.relative_to(root).as_posix()} for path in sorted(root.rglob("*.png"))]
    outcome = convert(indexed(root, rows), tmp_path / "out", RAW)
    assert read_so_far(root) == ["a/i00.png", "a/new.png"]
    assert len(outcome.index) == 21
    np.testing.assert_array_equal(pixels_of(outcome.index)["a/i00.png#0"], grey(seed=100))


def test_new_labels_make_no_image_anew(twenty, tmp_path, worker_that, root, indexed):
    worker_that(COUNT)
    convert(twenty, tmp_path / "out", RAW)
    read_so_far(root)
    rows = [{"path": path, "label": "benign"} for path in index.read(twenty)["path"].to_pylist()]
    outcome = convert(indexed(root, rows), tmp_path / "out", RAW)
    assert read_so_far(root) == []
    assert set(outcome.index["label"].to_pylist()) == {"benign"}


def test_deleted_and_altered_files_are_made_again(twenty, tmp_path, worker_that, root):
    first = convert(twenty, tmp_path / "out", RAW)
    (tmp_path / "out/a/i00.png").unlink()
    (tmp_path / "out/b/i01.png").write_bytes(b"altered")
    (tmp_path / "out/index.parquet").unlink()
    worker_that(COUNT)
    again = convert(twenty, tmp_path / "out", RAW)
    assert read_so_far(root) == ["a/i00.png", "b/i01.png"]
    assert index.digest(index.read(tmp_path / "out/index.parquet")) == index.digest(first.index)
    assert again.index["sha256"].to_pylist() == [files.sha256_file(path) for path in index.image_paths(again.index)]


def test_a_mask_that_changed_is_made_again(tmp_path, worker_that, root, indexed):
    save_png(root / "a.png", grey())
    save_png(root / "m.png", np.zeros((24, 20), np.uint8))
    lesion = {"kind": "mask", "coordinates": [], "mask_path": "m.png"}
    path = indexed(root, [{"path": "a.png", "lesions": [lesion]}])
    convert(path, tmp_path / "out", RAW)
    worker_that(COUNT)
    convert(path, tmp_path / "out", RAW)
    assert read_so_far(root) == []
    save_png(root / "m.png", np.full((24, 20), 7, np.uint8))
    made = convert(path, tmp_path / "out", RAW).index
    assert read_so_far(root) == ["a.png", "m.png"]
    mask = pixels_of(made.set_column(4, index.SCHEMA.field("path"), [["m.png"]]))["a.png#0"]
    assert mask.min() == 255


def test_images_that_left_the_index_stay_as_files(twenty, tmp_path, worker_that, root, indexed):
    convert(twenty, tmp_path / "out", RAW)
    kept = [path for path in index.read(twenty)["path"].to_pylist() if path.startswith("a/")]
    outcome = convert(indexed(root, [{"path": path} for path in kept], "part.parquet"), tmp_path / "out", RAW)
    assert outcome.index["path"].to_pylist() == kept
    assert len(list((tmp_path / "out").rglob("*.png"))) == 20
    worker_that(COUNT)
    assert len(convert(twenty, tmp_path / "out", RAW).index) == 20
    assert read_so_far(root) == []


def test_a_file_that_was_written_over_is_not_taken_for_the_old_one(tmp_path, indexed, root):
    """The converted files of both contents have the same size; only the memory of what was written tells them apart."""
    contents = [np.full((24, 20), value, np.uint8) for value in (1, 2)]
    for turn in (0, 1, 0):
        save_png(root / "a.png", contents[turn])
        made = convert(indexed(root, [{"path": "a.png"}]), tmp_path / "out", RAW).index
        np.testing.assert_array_equal(pixels_of(made)["a.png#0"], contents[turn])
        assert made["sha256"].to_pylist() == [files.sha256_file(tmp_path / "out/a.png")]


def test_damaged_records_only_cost_time(twenty, tmp_path, worker_that, root):
    first = convert(twenty, tmp_path / "out", RAW)
    for path in (tmp_path / "out/.spicula/records").iterdir():
        path.write_bytes(b"damaged")
    worker_that(COUNT)
    assert index.digest(convert(twenty, tmp_path / "out", RAW).index) == index.digest(first.index)
    assert len(read_so_far(root)) == 20


def test_rejected_files_are_tried_again(twenty, tmp_path, root):
    (root / "a/i00.png").rename(tmp_path / "away.png")
    assert len(convert(twenty, tmp_path / "out", RAW).rejected) == 1
    (tmp_path / "away.png").rename(root / "a/i00.png")
    again = convert(twenty, tmp_path / "out", RAW)
    assert len(again.rejected) == 0
    assert again.made == 1


def test_a_folder_has_one_kind_of_images_for_ever(twenty, tmp_path):
    convert(twenty, tmp_path / "out", RAW)
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match="other settings"):
        convert(twenty, tmp_path / "out", Settings.of(scale_to_16=True))
    assert tree(tmp_path / "out") == before


def test_a_folder_with_something_else_in_it_is_refused(twenty, tmp_path):
    save_png(tmp_path / "out/a/i00.png", grey())
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match="not empty and holds no conversion"):
        convert(twenty, tmp_path / "out", RAW)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        convert(twenty, tmp_path / "file", RAW)
    assert tree(tmp_path / "out") == before


def test_sources_are_never_written_over(twenty, tmp_path):
    convert(twenty, tmp_path / "out", RAW)
    made = index.read(tmp_path / "out/index.parquet")
    index.write(tmp_path / "second.parquet", made)
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match="holds images of this Index"):
        convert(tmp_path / "second.parquet", tmp_path / "out", RAW)
    assert tree(tmp_path / "out") == before


# The rest is about processes: they die, are killed, and meet full disks.


def test_a_decoder_that_crashes_costs_one_image(twenty, tmp_path, worker_that):
    worker_that("if 'i03' in str(path): os.kill(os.getpid(), signal.SIGSEGV)")
    outcome = convert(twenty, tmp_path / "out", RAW, jobs=2)
    assert outcome.rejected.to_pylist() == [{"path": "b/i03.png", "reason": "its decoder died of SIGSEGV"}]
    assert len(outcome.index) == 19


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to the limit")
def test_a_decoder_that_eats_the_memory_costs_one_image(twenty, tmp_path, worker_that):
    worker_that("big = np.empty(2**33, np.uint8) if 'i03' in str(path) else None")
    outcome = convert(twenty, tmp_path / "out", RAW)
    assert [row["path"] for row in outcome.rejected.to_pylist()] == ["b/i03.png"]
    assert "more memory than there is" in outcome.rejected["reason"][0].as_py()


def test_odd_exceptions_cost_one_image(twenty, tmp_path, worker_that):
    worker_that("assert 'i03' not in str(path), 'something nobody thought of'")
    outcome = convert(twenty, tmp_path / "out", RAW)
    assert "something nobody thought of" in outcome.rejected["reason"][0].as_py()
    assert len(outcome.index) == 19


CONVERT = """
import sys
from pathlib import Path
from spicula.cli import main
from spicula.convert import engine

if len(sys.argv) > 3:
    engine.COMMAND = (sys.executable, sys.argv[3])
sys.exit(main(["convert", sys.argv[1], "--to", sys.argv[2], "--jobs", "2"]))
"""


def start(index_path, to, *worker):
    """A conversion in a process group of its own."""
    command = [sys.executable, "-c", CONVERT, str(index_path), str(to), *map(str, worker)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def test_a_killed_conversion_goes_on_where_it_was(twenty, tmp_path, worker_that, root):
    undisturbed = convert(twenty, tmp_path / "undisturbed", RAW)
    slow = worker_that("time.sleep(0.1)", more="tree.RECORD_SECONDS = 0.0")  # a record after every image
    process = start(twenty, tmp_path / "out", slow)
    records = tmp_path / "out/.spicula/records"
    wait_for(lambda: len(list(records.glob("[!.]*.parquet"))) >= 5, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = len(list(records.glob("[!.]*.parquet")))
    assert 5 <= done < 20
    assert not (tmp_path / "out/index.parquet").exists()

    worker_that(COUNT)
    resumed = convert(twenty, tmp_path / "out", RAW)
    assert len(read_so_far(root)) == 20 - done
    assert index.digest(resumed.index) == index.digest(undisturbed.index)
    assert tree(tmp_path / "out").keys() == tree(tmp_path / "undisturbed").keys()
    assert not list((tmp_path / "out").rglob(".part-*"))


def test_an_interrupt_says_how_to_go_on(twenty, tmp_path, worker_that):
    slow = worker_that("time.sleep(0.2)")
    process = start(twenty, tmp_path / "out", slow)
    wait_for(lambda: len(list((tmp_path / "out").rglob("*.png"))) >= 2, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "takes up where it stopped" in errors
    assert "Traceback" not in errors


def test_two_conversions_into_one_folder(twenty, tmp_path, worker_that):
    slow = worker_that("time.sleep(60)")
    process = start(twenty, tmp_path / "out", slow)
    try:
        wait_for((tmp_path / "out/conversion.json").exists, process)
        with pytest.raises(SpiculaError, match="another conversion is working in"):
            convert(twenty, tmp_path / "out", RAW)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on the size of files")
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(twenty, tmp_path, worker_that, root):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))"
    full = worker_that("None", more=f"signal.signal(signal.SIGXFSZ, signal.SIG_IGN); {limit}")
    process = start(twenty, tmp_path / "out", full)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    (line,) = errors.strip().splitlines()
    assert line.startswith("spicula: cannot write")
    assert not list((tmp_path / "out").rglob("*.png"))
    process = start(twenty, tmp_path / "out")
    assert process.communicate(timeout=120)[0].count("20 images, 20 of them converted now; 0 rejected") == 1
    assert process.returncode == 0


def test_a_target_that_cannot_be_written_is_one_line(twenty, tmp_path):
    (tmp_path / "file").write_text("a file where a folder should be")
    process = start(twenty, tmp_path / "file" / "out")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    (line,) = errors.strip().splitlines()
    assert "cannot write" in line


@pytest.mark.slow
def test_a_thousand_exams_killed_twice_end_as_if_undisturbed(tmp_path):
    """4,000 images. The process group is killed at two moments drawn at random, while images are made."""
    from spicula.catalog import index_dataset
    from spicula.phantoms import make_exams

    make_exams(tmp_path / "exams", 1000, size=(128, 128))
    reading = index_dataset("phantom", tmp_path / "exams", tmp_path / "unpacked", {})
    assert len(reading.index) == 4000
    index.write(tmp_path / "index.parquet", reading.index)
    undisturbed = convert(tmp_path / "index.parquet", tmp_path / "undisturbed", RAW)
    assert len(undisturbed.rejected) == 0

    moments = random.Random(6).sample(range(200, 3800), 2)
    for moment in sorted(moments):
        process = start(tmp_path / "index.parquet", tmp_path / "out")
        wait_for(lambda moment=moment: len(list((tmp_path / "out").rglob("*.png"))) >= moment, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "out/index.parquet").exists()
    process = start(tmp_path / "index.parquet", tmp_path / "out")
    assert process.communicate()[0].count("4000 images") == 1
    assert process.returncode == 0

    resumed = index.read(tmp_path / "out/index.parquet")
    assert index.digest(resumed) == index.digest(undisturbed.index)
    assert resumed["image_id"].equals(undisturbed.index["image_id"])
    same = {name: data for name, data in tree(tmp_path / "undisturbed").items() if name.endswith(".png")}
    assert {name: data for name, data in tree(tmp_path / "out").items() if name.endswith(".png")} == same
    assert not list((tmp_path / "out").rglob(".part-*"))
