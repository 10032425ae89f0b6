"""The engine of one machine, with real processes: whatever dies, every task has one outcome, and nothing is left."""

import os
import random
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter

import engine_bench
import pytest
from engine_bench import COMMAND, drive, is_alive, outputs_of, task, wait_until, workers_of

from spicula.errors import SpiculaError
from spicula.exams.engines import pools, sizes
from spicula.exams.engines.local import LocalEngine

linux = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@pytest.fixture
def engine(tmp_path):
    """Makes started engines, which are stopped at the end."""
    made = []

    def make(cpu_workers=2, model_workers=1, seconds=None, command=COMMAND, **setting):
        setting = {"artefacts": str(tmp_path), **setting}
        made.append(LocalEngine(setting, cpu_workers, model_workers, seconds, command=command))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()


def ok(count: int, step: str = "crop", pool: str = "cpu"):
    return [(pool, task(f"ok-{number}", step)) for number in range(count)]


def test_every_task_comes_back_once_with_its_record(engine):
    tasks = [*ok(20), *ok(20, "heatmaps", "model")]
    done = drive(engine(), tasks)
    assert {one.task["id"]: one.record["outputs"] for one in done} == {one["id"]: outputs_of(one) for _, one in tasks}
    assert len(done) == 40
    assert {one.worker for one in done} <= {"cpu 1", "cpu 2", "model 1"}
    assert all(one.started == one.record["started"] for one in done)


@pytest.mark.parametrize(
    ("exam", "reason"),
    [
        ("poison-1", "its worker died of SIGSEGV"),
        ("exit-1", "its worker ended the process with status 3"),
        ("stuck-1", "crop took more than 3 s"),
        ("busy-1", "crop took more than 3 s"),
        ("vast-1", "its worker ended the process with status 1"),
    ],
)
def test_a_poison_task_is_lost_each_time_and_holds_up_nobody(engine, exam, reason):
    if exam == "vast-1" and sys.platform != "linux":
        pytest.skip("only Linux keeps to the limit")
    tasks = [*ok(5), ("cpu", task(exam)), *ok(5, "visualize")]
    done = drive(engine(seconds={"crop": 3.0}), tasks)
    outcomes = Counter((one.task["exam"], one.task["step"], one.lost) for one in done)
    assert outcomes.pop((exam, "crop", reason)) == 3
    assert len(outcomes) == 10
    assert set(outcomes.values()) == {1}
    assert {lost for _, _, lost in outcomes} == {None}


@linux
def test_a_model_worker_that_eats_the_memory_is_ended(engine, monkeypatch):
    monkeypatch.setattr(sizes, "memory_bytes", lambda: 2**29)
    done = drive(engine(), [("model", task("hungry-1")), *ok(2, "heatmaps", "model")], attempts=1)
    assert {one.task["exam"]: one.lost for one in done} == {
        "hungry-1": "it takes more than 384 MB of memory",
        "ok-0": None,
        "ok-1": None,
    }


@linux
def test_workers_killed_at_any_moment_cost_attempts_and_nothing_else(engine, monkeypatch):
    # the dice may fall on one starting worker after the other, which is no reason here to give up
    monkeypatch.setattr(pools, "MOST_STARTS", 1000)
    tasks = [*ok(60), *ok(60, "heatmaps", "model")]
    dice, killed = random.Random(0), []

    def kill(told):
        due = min(20, len(told) // 4) - len(killed)
        victims = workers_of(os.getpid())
        for pid in dice.sample(victims, min(due, len(victims))):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    done = drive(engine(), tasks, attempts=100, between=kill)
    assert len(killed) == 20
    finished = Counter((one.task["exam"], one.task["step"]) for one in done if one.record is not None)
    assert finished == Counter((one["exam"], one["step"]) for _, one in tasks)
    outcomes = Counter((one.task["id"], one.task["attempt"]) for one in done)
    assert set(outcomes.values()) == {1}
    lost = [one.lost for one in done if one.record is None]
    assert len(lost) <= 20
    assert set(lost) <= {"its worker died of SIGKILL, as when memory runs out"}


def test_cpu_and_model_stages_are_under_way_together(engine):
    tasks = [(pool, task("meet-1", step)) for pool, step in (("cpu", "crop"), ("model", "heatmaps"))]
    done = drive(engine(cpu_workers=1), tasks)
    assert sorted(one.worker for one in done) == ["cpu 1", "model 1"]


def test_every_model_worker_has_a_gpu_of_its_own(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "gpus", lambda: ["3", "GPU-8a0e"])
    tasks = [("model", task("meet-1", step)) for step in ("heatmaps", "classify:image-only")]
    drive(engine(model_workers=2, device="cuda"), tasks)
    assert {path.read_text() for path in tmp_path.glob("begun-*")} == {"3", "GPU-8a0e"}


def test_there_is_room_for_two_tasks_a_worker(engine):
    running = engine(cpu_workers=2, model_workers=1)
    assert (running.room("cpu"), running.room("model")) == (4, 2)
    for pool, one in ok(4):
        running.submit(pool, one)
    assert (running.room("cpu"), running.room("model")) == (0, 2)
    with pytest.raises(ValueError, match="no room"):
        running.submit("cpu", task("ok-9"))
    assert len(running.wait(60.0)) == running.room("cpu") > 0


def test_waiting_for_nothing_ends(engine):
    assert engine().wait(0.1) == []


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("refused", r"^the bundle is broken$"),
        ("error", r"worker processes cannot start \(ImportError: no library here\)"),
        ("dies", r"workers of the pool 'cpu' cannot start \(its worker died of SIGKILL"),
        ("stuck", r"workers of the pool 'cpu' cannot start \(took more than 0.5 s to start\)"),
    ],
)
def test_workers_that_cannot_start_are_an_error_with_the_cause(engine, start, message, monkeypatch):
    if start == "stuck":
        monkeypatch.setattr(pools, "START_SECONDS", 0.5)
    with pytest.raises(SpiculaError, match=message):
        drive(engine(model_workers=0, start=start), ok(1))


@pytest.mark.parametrize(
    ("start", "reason"),
    [("error", "ImportError: no library here"), ("dies", "its worker died of SIGKILL, as when memory runs out")],
)
def test_a_worker_that_is_ready_goes_on_when_no_other_can_start(engine, start, reason, capsys, monkeypatch):
    monkeypatch.setattr(pools, "MOST_STARTS", 2)
    running = engine(model_workers=0, start=start, starts=2)
    drive(running, ok(1))  # for one task there is one worker, which is ready now
    done = drive(running, [("cpu", task(f"long-{number}")) for number in range(6)])
    assert all(one.record is not None for one in done)
    # the tasks may be done before it is noticed that the last one died
    assert wait_until(lambda: running.wait(0.1) == [] and running.room("cpu") == 2)
    line = f"workers of the pool 'cpu' cannot start ({reason}); it goes on with the 1 that is ready\n"
    assert capsys.readouterr().err == line


def test_a_command_that_is_not_there(engine):
    with pytest.raises(SpiculaError, match=r"worker processes cannot start \(No such file"):
        engine(command=("/no/such/program",))


def test_what_is_no_exams_fault_ends_the_run(engine):
    with pytest.raises(SpiculaError, match="the disk is full"):
        drive(engine(), [*ok(3), ("cpu", task("full-1"))])


@linux
def test_stopping_leaves_no_process(engine, tmp_path):
    running = engine(cpu_workers=2)
    for one in (task("stuck-1"), task("busy-2")):
        running.submit("cpu", one)
    running.submit("model", task("stuck-3", "heatmaps"))
    assert wait_until(lambda: running.wait(0.05) == [] and len(list(tmp_path.glob("begun-*"))) == 3)
    started = workers_of(os.getpid())
    assert len(started) == 3
    running.stop()
    assert [pid for pid in started if is_alive(pid)] == []


#: A driver, in a process of its own.
DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
from engine_bench import COMMAND, drive, task
from spicula.exams.engines.local import LocalEngine

engine = LocalEngine({"artefacts": sys.argv[2], "seconds": 600}, 2, 1, command=COMMAND)
engine.start()
try:
    drive(engine, [("cpu", task("busy-1")), ("cpu", task("slow-2")), ("model", task("slow-3", "heatmaps"))])
finally:
    engine.stop()
"""


@pytest.fixture
def driver(tmp_path):
    """A driver whose workers are at three tasks that never end: its process, and the numbers of the workers."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, os.path.dirname(engine_bench.__file__), str(tmp_path)],  # noqa: PTH120
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert wait_until(lambda: len(list(tmp_path.glob("begun-*"))) == 3)
    workers = workers_of(process.pid)
    assert len(workers) == 3
    yield process, workers
    process.kill()
    process.communicate()  # closes the pipe


@linux
def test_a_driver_that_is_killed_leaves_no_worker(driver):
    process, workers = driver
    process.kill()
    process.wait()
    assert wait_until(lambda: not any(is_alive(pid) for pid in workers))


@linux
def test_an_interrupt_ends_everything_quietly(driver):
    process, workers = driver
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(timeout=60) != 0
    errors = process.stderr.read()
    assert wait_until(lambda: not any(is_alive(pid) for pid in workers))
    assert errors.count("Traceback") == 1  # of the driver, which this script does not catch
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"


def test_the_memory_of_the_driver_is_flat(engine):
    running = engine()
    _count(running, 500)
    tracemalloc.start()
    try:
        _count(running, 500)
        before = tracemalloc.get_traced_memory()[0]
        _count(running, 3000)
        assert tracemalloc.get_traced_memory()[0] - before < 200_000
    finally:
        tracemalloc.stop()


def _count(running: LocalEngine, count: int) -> None:
    submitted = told = 0
    while told < count:
        while submitted < count and running.room("cpu"):
            running.submit("cpu", task("ok-1"))
            submitted += 1
        told += len(running.wait(1.0))
