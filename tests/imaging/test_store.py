import os
import signal
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spicula import index
from spicula.errors import SpiculaError
from spicula.imaging import decoding
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.readers import read_pixels
from spicula.imaging.store import build_store

SETTINGS = Preprocess(size=(8, 8), channels=1)


def values(store):
    """The value of every pixel of each image, by image_id."""
    images = store.read(np.arange(len(store)))
    return dict(zip(store.table["image_id"].to_pylist(), images[:, 4, 4, 0].tolist(), strict=True))


def shard_files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".npy", ".parquet")}


def test_rows_are_those_of_the_index(tmp_path, folder_of_images, index_of):
    table = index_of(folder_of_images(a=10, b=20, c=30)).sort_by([("image_id", "descending")])
    store = build_store(table, SETTINGS, tmp_path / "store")
    assert store.table["image_id"].to_pylist() == ["c", "b", "a"]
    assert store.table["sha256"].to_pylist() == table["sha256"].to_pylist()
    assert values(store) == {"a": 10, "b": 20, "c": 30}
    assert store.rows(["a", "c", "a"]).tolist() == [2, 0, 2]
    assert len(store) == 3
    assert store.shape == (8, 8, 1)
    assert store.nbytes == 3 * 64
    assert store.dtype == np.uint8
    assert len(store.rejected) == 0
    assert store.geometry(1).source_width == 10


def test_a_store_has_what_preprocess_makes(tmp_path, mammogram, index_of):
    import cv2

    folder = tmp_path / "images"
    folder.mkdir()
    for side in ("left", "right"):
        cv2.imwrite(str(folder / f"{side}.png"), mammogram(side=side, top=4095))
    settings = Preprocess(size=(60, 50), channels=3, bits=16, crop="breast", orient=True, contrast="percentile")
    store = build_store(index_of(folder), settings, tmp_path / "store")
    for side in ("left", "right"):
        expected = settings.apply(read_pixels(folder / f"{side}.png"))
        (row,) = store.rows([side])
        np.testing.assert_array_equal(store.read(np.array([row]))[0], expected.array)
        assert store.geometry(row) == expected.geometry


@pytest.fixture(scope="module")
def big_store(tmp_path_factory):
    """A store of several shards, and its images in order."""
    import cv2

    from spicula import files

    root = tmp_path_factory.mktemp("big")
    rows = []
    for number in range(40):
        path = root / f"{number:02}.png"
        cv2.imwrite(str(path), np.full((4, 4), number, np.uint8))
        rows.append({"dataset": "t", "image_id": path.stem, "path": path.name, "sha256": files.sha256_file(path)})
    store = build_store(index.from_rows(rows, root), SETTINGS, root / "store", jobs=2)
    assert len(list((root / "store").rglob("*.npy"))) > 2
    return store


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 39), max_size=60))
def test_reading_gathers_any_rows_in_any_order(big_store, rows):
    images = big_store.read(np.array(rows, np.int64))
    assert images.shape == (len(rows), 8, 8, 1)
    np.testing.assert_array_equal(images[:, 3, 3, 0], rows)


@pytest.mark.parametrize("rows", [np.arange(40), np.arange(5, 17), np.arange(39, -1, -1), np.array([7] * 5)])
def test_reading_runs_of_rows(big_store, rows):
    images = big_store.read(rows)
    np.testing.assert_array_equal(images[:, 0, 0, 0], rows)
    images[:] = 0  # a copy, which is the caller's
    np.testing.assert_array_equal(big_store.read(rows)[:, 0, 0, 0], rows)


def test_what_is_not_there_is_named(big_store):
    with pytest.raises(SpiculaError, match="image nobody is not in the Store"):
        big_store.rows(["01", "nobody"])
    for row in (-1, 40):
        with pytest.raises(SpiculaError, match="rows 0 to 39"):
            big_store.read(np.array([row]))


def test_nothing_is_decoded_twice(tmp_path, folder_of_images, index_of):
    folder = folder_of_images(a=10, b=20)
    table = index_of(folder)
    build_store(table, SETTINGS, tmp_path / "store")
    before = shard_files(tmp_path)
    for path in folder.iterdir():
        path.unlink()  # whoever opened one now would fail
    assert values(build_store(table, SETTINGS, tmp_path / "store")) == {"a": 10, "b": 20}
    assert shard_files(tmp_path) == before


def test_only_new_and_changed_images_are_decoded(tmp_path, folder_of_images, index_of):
    build_store(index_of(folder_of_images(a=10, b=20, c=30)), SETTINGS, tmp_path / "store")
    before = shard_files(tmp_path)
    table = index_of(folder_of_images(b=25, d=40)).filter([True, True, False, True])
    store = build_store(table, SETTINGS, tmp_path / "store")
    assert values(store) == {"a": 10, "b": 25, "d": 40}
    after = shard_files(tmp_path)
    assert before.items() <= after.items()
    new = [path for path in after.keys() - before.keys() if path.suffix == ".npy"]
    assert sum(len(np.load(path)) for path in new) == 2


def test_another_preprocess_has_images_of_its_own(tmp_path, folder_of_images, index_of):
    table = index_of(folder_of_images(a=10))
    build_store(table, SETTINGS, tmp_path / "store")
    store = build_store(table, SETTINGS.model_copy(update={"bits": 16}), tmp_path / "store")
    assert values(store) == {"a": 2570}
    assert values(build_store(table, SETTINGS, tmp_path / "store")) == {"a": 10}


def test_identical_files_share_their_pixels(tmp_path, folder_of_images, index_of):
    store = build_store(index_of(folder_of_images(a=10, b=10, c=20)), SETTINGS, tmp_path / "store")
    assert values(store) == {"a": 10, "b": 10, "c": 20}
    assert sum(len(np.load(path)) for path in tmp_path.rglob("*.npy")) == 2


def test_files_that_cannot_be_read_are_rejected_with_reasons(tmp_path, folder_of_images, index_of):
    folder = folder_of_images(a=10, b=20, c=30, d=40, e=50)
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:-30])
    table = index_of(folder)
    (folder / "c.png").unlink()
    folder_of_images(d=41)
    store = build_store(table, SETTINGS, tmp_path / "store")
    assert values(store) == {"a": 10, "e": 50}
    reasons = dict(zip(store.rejected["path"].to_pylist(), store.rejected["reason"].to_pylist(), strict=True))
    assert list(reasons) == ["b.png", "c.png", "d.png"]
    assert store.rejected.schema.equals(index.REJECTED)
    assert "cut short" in reasons["b.png"]
    assert "No such file" in reasons["c.png"]
    assert "changed after it was indexed" in reasons["d.png"]
    with pytest.raises(SpiculaError, match="image b"):
        store.rows(["b"])


def test_rejected_files_are_tried_again(tmp_path, folder_of_images, index_of):
    folder = folder_of_images(a=10, b=20)
    table = index_of(folder)
    (folder / "b.png").rename(tmp_path / "b.png")
    assert len(build_store(table, SETTINGS, tmp_path / "store").rejected) == 1
    (tmp_path / "b.png").rename(folder / "b.png")
    assert values(build_store(table, SETTINGS, tmp_path / "store")) == {"a": 10, "b": 20}


def test_an_index_without_digests_gets_them(tmp_path, folder_of_images, index_of):
    folder = folder_of_images(a=10, b=20)
    table = index_of(folder, sha256=None)
    (folder / "b.png").unlink()
    store = build_store(table, SETTINGS, tmp_path / "store")
    assert store.table["sha256"].to_pylist() == index_of(folder)["sha256"].to_pylist()
    assert store.rejected["path"].to_pylist() == ["b.png"]


def test_an_empty_index_makes_an_empty_store(tmp_path):
    store = build_store(index.from_rows([], tmp_path), SETTINGS, tmp_path / "store")
    assert len(store) == 0
    assert store.read(np.array([], np.int64)).shape == (0, 8, 8, 1)


def test_frames_of_one_file_are_images_of_their_own(tmp_path, noise, dicom):
    from spicula import files

    images = [noise(24, 20, 255, seed) for seed in range(3)]
    data = b"".join(image.tobytes() for image in images)
    path = dicom(tmp_path / "a.dcm", data, (24, 20), bits=8, allocated=8, NumberOfFrames=3)
    digest = files.sha256_file(path)
    row = {"dataset": "t", "path": path.name, "sha256": digest}
    table = index.from_rows([{**row, "image_id": str(frame), "frame": frame} for frame in (2, 0, 3)], tmp_path)
    store = build_store(table, Preprocess(size=(24, 20), channels=1), tmp_path / "store")
    np.testing.assert_array_equal(store.read(np.array([0, 1]))[..., 0], [images[2], images[0]])
    assert "frame 3 was asked for" in store.rejected["reason"][0].as_py()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, folder_of_images, index_of):
    (tmp_path / "store").write_text("a file where a folder should be")
    with pytest.raises(SpiculaError, match="cannot write"):
        build_store(index_of(folder_of_images(a=10)), SETTINGS, tmp_path / "store")


def test_two_builds_at_a_time_do_not_disturb_each_other(tmp_path, folder_of_images, index_of):
    table = index_of(folder_of_images(**{f"i{number}": number for number in range(30)}))
    stores = []
    threads = [
        threading.Thread(target=lambda: stores.append(build_store(table, SETTINGS, tmp_path / "store", jobs=1)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [values(store) for store in stores] == 2 * [{f"i{number}": number for number in range(30)}]


BUILD = """
import sys
from pathlib import Path
from spicula import index
from spicula.imaging import workers
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.store import build_store

workers.COMMAND = (sys.executable, sys.argv[3])
build_store(index.read(Path(sys.argv[1])), Preprocess(size=(8, 8), channels=1), Path(sys.argv[2]), jobs=2)
"""


def test_a_killed_build_goes_on_where_it_was(tmp_path, folder_of_images, index_of, worker_that):
    from spicula.imaging import workers

    table = index_of(folder_of_images(**{f"i{number:02}": number for number in range(40)}))
    index.write(tmp_path / "index.parquet", table)
    worker_that("time.sleep(0.1)", more="decoding.SHARD_SECONDS = 0.0")  # a shard for every image, slowly
    command = [sys.executable, "-c", BUILD, tmp_path / "index.parquet", tmp_path / "store", workers.COMMAND[1]]
    build = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.parquet"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(build.pid, signal.SIGKILL)
    build.wait()
    time.sleep(0.5)  # workers end when they notice, at their next word
    before = shard_files(tmp_path / "store")
    done = sum(path.suffix == ".parquet" for path in before)
    assert 3 < done < 40

    worker_that("Path(path).with_suffix('.read').touch()")
    assert values(build_store(table, SETTINGS, tmp_path / "store")) == {f"i{number:02}": number for number in range(40)}
    assert before.items() <= shard_files(tmp_path / "store").items()
    assert len(list(tmp_path.rglob("*.read"))) == 40 - done  # what was done is not done again


def test_workers_import_nothing_heavy():
    heavy = ("torch", "sklearn", "skimage", "scipy", "matplotlib")
    code = f"import {decoding.__name__}, sys; print([n for n in {heavy} if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_real_images(test_data, tmp_path):
    folder = tmp_path / "films"
    with tarfile.open(test_data / "mini-mias" / "all-mias.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    paths = [*sorted(folder.rglob("*.pgm"))[:6], *sorted((test_data / "dicom").iterdir())]
    rows = [{"dataset": "t", "image_id": path.name, "path": str(path)[1:]} for path in paths]
    table = index.from_rows(rows, "/")
    settings = Preprocess(size=(160, 128), channels=1, crop="breast", orient=True, keep_aspect=True, background="black")
    store = build_store(table, settings, tmp_path / "store")
    assert len(store) == 16
    assert sorted(path.rsplit("/", 1)[1] for path in store.rejected["path"].to_pylist()) == [
        "JPEGLossless_1s_1f_i_16_16_bad.dcm",
        "emri_small_jpeg_2k_lossless_too_short.dcm",
    ]
    assert store.read(np.arange(6)).std(axis=(1, 2, 3)).min() > 20


def test_12_bit_values_in_a_file_of_16_bits_are_not_made_almost_black(tmp_path, mammogram, index_of):
    import cv2

    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "raw.png"), mammogram(top=4095).astype(np.uint16))
    table = index_of(folder, bits=12)

    rejected = build_store(table, SETTINGS, tmp_path / "store").rejected.to_pylist()
    assert [row["path"] for row in rejected] == ["raw.png"]
    assert "use 12 of the 16 bits of its file" in rejected[0]["reason"]
    by_percentile = build_store(table, SETTINGS.model_copy(update={"contrast": "percentile"}), tmp_path / "store")
    assert by_percentile.read(np.arange(1)).max() > 200
    assert len(build_store(index_of(folder, bits=16), SETTINGS, tmp_path / "other")) == 1
