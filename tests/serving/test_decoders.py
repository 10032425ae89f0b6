"""Sandboxed decoding: a file that kills its decoder costs itself, and whoever leaves costs nothing."""

import asyncio
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from bundle_maker import grey, make
from process_tree import below

from spicula.errors import RejectedImageError, SpiculaError
from spicula.imaging.readers import read_pixels
from spicula.models import features
from spicula.models.settings import FeatureSettings
from spicula.serving import decoding
from spicula.serving.decoding import Decoders
from spicula.serving.problems import Problem

WORKER = """
import os, signal, sys, time
import numpy as np
from pathlib import Path
from spicula.imaging import readers
from spicula.serving import decode_worker

real = readers.read_pixels

def read_pixels(path, frame=0):
    {misdeed}
    return real(path, frame)

readers.read_pixels = read_pixels
decode_worker.main()
"""


@pytest.fixture
def worker_that(tmp_path, monkeypatch):
    """Makes decoding processes do something bad before they read a file."""

    def do(misdeed, limit_seconds=60.0):
        monkeypatch.setattr(decoding, "LIMIT_SECONDS", limit_seconds)
        (tmp_path / "worker.py").write_text(WORKER.format(misdeed=misdeed))
        monkeypatch.setattr(decoding, "COMMAND", (sys.executable, str(tmp_path / "worker.py")))

    return do


def run(model, use, queue=64, count=2):
    """Start decoders and use them."""

    async def main():
        decoders = Decoders([model], queue, count)
        await decoders.start()
        try:
            return await use(decoders)
        finally:
            await decoders.close()

    return asyncio.run(main())


def prepared(model, paths, **options):
    """What came of each file: the image, or the reason why there is none."""

    async def use(decoders):
        return await asyncio.gather(*(decoders.prepare(path, model) for path in paths), return_exceptions=True)

    return run(model, use, **options)


@pytest.fixture
def model(tmp_path):
    return make(tmp_path / "bundle")


@pytest.fixture
def files(tmp_path):
    return [grey(tmp_path / f"images/{number:02}.png", 10 * number) for number in range(12)]


def check_good(model, files, found):
    for path, one in zip(files, found, strict=True):
        np.testing.assert_array_equal(one.array, model.preprocess.apply(read_pixels(path)).array)
        assert (one.kind, one.side) == ("png", None)
        assert one.geometry.source_width == 30


def test_images_come_as_the_one_preprocessing_makes_them(model, files):
    check_good(model, files, prepared(model, files))


@pytest.mark.parametrize(
    ("misdeed", "reason"),
    [
        ("if '03' in path.stem: os.kill(os.getpid(), signal.SIGSEGV)", "its decoder died of SIGSEGV"),
        ("if '03' in path.stem: os._exit(3)", "its decoder ended the process with status 3"),
        ("time.sleep(600 if '03' in path.stem else 0)", "decoding it took more than 3 s"),
        ("assert '03' not in path.stem, 'odd'", "preparing it failed (AssertionError: odd)"),
        pytest.param(
            "big = np.empty(2**33, np.uint8) if '03' in path.stem else None",
            "preparing it takes more memory than there is",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to the limit"),
        ),
    ],
)
def test_a_file_that_kills_its_decoder_costs_itself(model, files, worker_that, misdeed, reason):
    worker_that(misdeed, limit_seconds=3.0 if "sleep" in misdeed else 60.0)
    found = prepared(model, files)
    bad = found.pop(3)
    assert isinstance(bad, RejectedImageError)
    assert str(bad) == reason
    check_good(model, files[:3] + files[4:], found)


def test_every_file_of_many_may_kill_its_decoder(model, files, worker_that):
    worker_that("os.abort()")
    found = prepared(model, files)
    assert {str(one) for one in found} == {"its decoder died of SIGABRT"}


def test_what_decoders_print_is_neither_an_answer_nor_in_the_log(model, files, worker_that, capfd):
    worker_that("os.write(1, b'canary'); print('canary'); os.write(2, b'canary')")
    check_good(model, files, prepared(model, files))
    assert "canary" not in "".join(capfd.readouterr())


def test_decoders_that_cannot_start_say_why(model, monkeypatch):
    monkeypatch.setattr(decoding, "COMMAND", (sys.executable, "-c", "raise SystemExit('no library here')"))
    with pytest.raises(SpiculaError, match=r"cannot start \(no library here\)"):
        prepared(model, [])
    monkeypatch.setattr(decoding, "COMMAND", ("/nonexistent/python",))
    with pytest.raises(SpiculaError, match="cannot start"):
        prepared(model, [])


def test_more_files_than_may_wait_are_refused_at_once(model, files, worker_that):
    worker_that("time.sleep(1)")
    found = prepared(model, files, queue=4, count=1)
    full = [one for one in found if isinstance(one, Problem)]
    assert len(full) == len(files) - 4
    assert all((one.status, one.code, one.headers["Retry-After"]) == (503, "queue", "1") for one in full)
    assert sum(not isinstance(one, Exception) for one in found) == 4


def test_whoever_leaves_leaves_the_line_and_disturbs_nobody(model, files, worker_that):
    worker_that("time.sleep(0.3)")

    async def use(decoders):
        tasks = [asyncio.create_task(decoders.prepare(path, model)) for path in files[:6]]
        await asyncio.sleep(0.1)
        for task in tasks[:5]:
            task.cancel()
        await asyncio.gather(*tasks[:5], return_exceptions=True)
        assert decoders.waiting == 1
        return await tasks[5]

    check_good(model, files[5:6], [run(model, use, count=1)])


def test_nobody_waits_for_a_large_image(tmp_path, model, files, worker_that, monkeypatch):
    gate = tmp_path / "gate"
    worker_that(f"while 'large' in path.stem and not Path({str(gate)!r}).exists(): time.sleep(0.05)")
    monkeypatch.setattr(decoding, "LARGE_PIXELS", 30 * 20)
    large = [grey(tmp_path / f"images/large{number}.png", 7 + number, (60, 40)) for number in range(2)]

    async def use(decoders):
        tasks = [asyncio.create_task(decoders.prepare(path, model)) for path in large]
        found = await asyncio.gather(*(decoders.prepare(path, model) for path in files))
        assert not any(task.done() for task in tasks)
        gate.touch()
        return found, await asyncio.gather(*tasks)

    found, slow = run(model, use, count=1)
    check_good(model, files, found)
    for path, one in zip(large, slow, strict=True):
        np.testing.assert_array_equal(one.array, model.preprocess.apply(read_pixels(path)).array)


def test_processes_end_with_the_service(model, files):
    async def use(decoders):
        await decoders.prepare(files[0], model)
        return {child for child, _ in below(os.getpid())}

    if not Path("/proc/self/task").exists():
        pytest.skip("only Linux lists children")
    others = {child for child, _ in below(os.getpid())}
    children = run(model, use) - others
    assert len(children) >= 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_features_of_the_linear_line_are_computed_there(tmp_path, files):
    settings = FeatureSettings(groups=("intensity",))
    names = features.names(settings, (8, 8), 1)
    model = make(
        tmp_path / "linear",
        line="linear",
        features={"version": features.VERSION, "settings": settings.model_dump(mode="json")},
        input={"name": "features", "dtype": "float32", "shape": ["batch", len(names)], "meaning": "features"},
    )

    async def use(decoders):
        one = await decoders.prepare(files[7], model)
        return one, await one.inputs(model)

    one, inputs = run(model, use)
    assert inputs.shape == (1, len(names))
    np.testing.assert_array_equal(inputs, model.inputs(one.array[np.newaxis]))
