import sys

import pytest

from spicula.errors import SpiculaError
from spicula.imaging import workers
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.shards import Task, key_of, scan

SETTINGS = Preprocess(size=(8, 8), channels=1)


@pytest.fixture
def prepare(tmp_path, folder_of_images, index_of):
    """Prepares images of these names; returns the reasons of those rejected, and how many are stored."""

    def run(names):
        folder = folder_of_images(**{name: number for number, name in enumerate(names)})
        table = index_of(folder)
        tasks = [
            Task(key_of(digest, 0, None, SETTINGS), str(folder / path), digest, 0, None)
            for digest, path in zip(table["sha256"].to_pylist(), table["path"].to_pylist(), strict=True)
        ]
        told = list(workers.prepare_all(tasks, SETTINGS, tmp_path / "store", jobs=2))
        assert sorted(task.path for task, _ in told) == sorted(task.path for task in tasks)  # each exactly once
        places, _ = scan(tmp_path / "store", SETTINGS)
        rejected = {task.path.rsplit("/", 1)[1]: reason for task, reason in told if reason}
        assert places.keys() == {task.key for task, reason in told if reason is None}
        return rejected, len(places)

    return run


NAMES = [f"i{number:02}" for number in range(20)]


def test_without_incident(prepare):
    assert prepare(NAMES) == ({}, 20)


def test_a_decoder_that_crashes_costs_one_image(prepare, worker_that):
    worker_that("if 'crash' in path.stem: os.kill(os.getpid(), signal.SIGSEGV)")
    rejected, stored = prepare([*NAMES, "i03crash", "i11crash"])
    assert stored == 20
    assert rejected == dict.fromkeys(("i03crash.png", "i11crash.png"), "its decoder died of SIGSEGV")


def test_a_decoder_that_ends_the_process_costs_one_image(prepare, worker_that):
    worker_that("if 'exit' in path.stem: os._exit(3)")
    assert prepare([*NAMES, "exit"]) == ({"exit.png": "its decoder ended the process with status 3"}, 20)


def test_a_decoder_that_hangs_costs_one_image(prepare, worker_that, monkeypatch):
    monkeypatch.setattr(workers, "LIMIT_SECONDS", 4.0)
    worker_that("time.sleep(600 if 'hang' in path.stem else 0)")
    assert prepare([*NAMES, "hang"]) == ({"hang.png": "decoding it took more than 4 s"}, 20)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to the limit")
def test_a_decoder_that_eats_the_memory_costs_one_image(prepare, worker_that):
    worker_that("big = np.empty(2**33, np.uint8) if 'hungry' in path.stem else None")
    assert prepare([*NAMES, "hungry"]) == ({"hungry.png": "preparing it takes more memory than there is"}, 20)


def test_odd_exceptions_cost_one_image(prepare, worker_that):
    worker_that("assert 'odd' not in path.stem, 'something nobody thought of'")
    rejected, stored = prepare([*NAMES, "odd"])
    assert stored == 20
    assert "something nobody thought of" in rejected["odd.png"]


def test_what_decoders_print_is_no_message(prepare, worker_that):
    worker_that("os.write(1, b'warning: odd file\\n'); print('more of it')")
    assert prepare(NAMES) == ({}, 20)


def test_workers_that_cannot_start_are_an_error_with_the_cause(prepare, monkeypatch):
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-c", "raise SystemExit('no library here')"))
    with pytest.raises(SpiculaError, match=r"cannot start \(no library here\)"):
        prepare(NAMES)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on the size of files")
def test_workers_that_cannot_write_are_an_error(prepare, worker_that):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))"
    worker_that("None", more=f"signal.signal(signal.SIGXFSZ, signal.SIG_IGN); {limit}")
    with pytest.raises(SpiculaError, match=r"cannot write .*check"):
        prepare(NAMES)


def test_workers_that_die_without_an_image_to_blame_do_so_only_so_often(prepare, worker_that):
    worker_that("None", more="decoding.write_shard = lambda *_: os._exit(1)")
    with pytest.raises(SpiculaError, match="keep dying"):
        prepare(NAMES)


def test_a_file_called_like_a_module_in_the_current_folder_is_not_run(prepare, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    assert prepare(NAMES) == ({}, 20)
