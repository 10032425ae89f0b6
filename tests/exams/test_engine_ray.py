"""The Ray engine: the same outcomes as on one machine, whatever dies on the way."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engine_bench import COMMAND, is_alive, outputs_of, task, wait_until, workers_of

from spicula.errors import UsageError
from spicula.exams.engines import ray_worker
from spicula.exams.engines.ray import RayEngine, declared
from spicula.exams.stages import STAGES

linux = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


def needs_ray() -> None:
    """In place of pytest.importorskip: importing Ray here would start its threads in the process of the tests."""
    from importlib.util import find_spec

    if find_spec("ray") is None:
        pytest.skip("needs Ray")


def test_workers_ask_for_what_their_stages_declare():
    model = [stage.resources for stage in STAGES.values() if stage.resources.pool == "model"]
    assert declared("cpu")["num_gpus"] == 0
    assert declared("cpu")["num_cpus"] == 1
    assert declared("model") == {
        "num_cpus": max(one.cpus for one in model),
        "num_gpus": max(one.gpus for one in model),
        "memory": max(one.memory_mb for one in model) * 2**20,
    }


@pytest.mark.parametrize(
    ("setting", "resources", "expected"),
    [
        ({"device": "cuda", "streams": 1}, None, {"num_cpus": 1, "num_gpus": 1}),
        ({"device": "cpu", "streams": 3}, None, {"num_cpus": 3, "num_gpus": 0}),
        ({"device": "cpu", "streams": 3}, {"exam_gpu": 1}, {"num_cpus": 1, "num_gpus": 0, "exam_gpu": 1}),
        ({"device": "cuda"}, {"num_gpus": 0.5}, {"num_cpus": 1, "num_gpus": 0.5}),
    ],
)
def test_what_a_model_worker_asks_for(setting, resources, expected):
    ask = RayEngine({"artefacts": "/ws", **setting}, model_resources=resources)._asks["model"]
    assert {name: amount for name, amount in ask.items() if name != "memory"} == expected


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs Ray: pip install 'spicula\[ray\]'"):
        RayEngine({"artefacts": "/ws"}).start()


def test_a_machine_without_the_workspace_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_worker, "SEEN_SECONDS", 0.0)
    worker = ray_worker.RayWorker("cpu", {"artefacts": str(tmp_path)}, {}, COMMAND[1:])
    look = worker.look(str(tmp_path / "token"))
    assert look == {"host": socket.gethostname(), "code": ray_worker.code(), "sees_workspace": False}


def test_a_machine_without_the_images_says_so(tmp_path):
    worker = ray_worker.RayWorker("cpu", {"artefacts": str(tmp_path)}, {}, COMMAND[1:])
    told = worker.execute(task("ok-1", images=("/no/such/image.png",)), ["/no/such/image.png"])
    assert told["failed"] == "an image is not there; put the images on storage that all machines share"


#: A driver, in a process of its own: Ray leaves threads, handlers and warnings behind.
DRIVER = """
import json, sys
job = json.loads(sys.argv[1])
sys.path.insert(0, job["here"])
from engine_bench import COMMAND, drive, task
from spicula.exams.engines import pools
from spicula.exams.engines.ray import RayEngine

pools.START_SECONDS = job["start_seconds"]

if __name__ == "__main__":
    engine = RayEngine(
        {"artefacts": job["artefacts"], "seconds": job["seconds"], "start": job["start"]}, job["address"],
        cpu_workers=tuple(job["cpu_workers"]), model_workers=(1, 1), model_resources={"exam_gpu": 1},
        seconds={"crop": 600 if job["limit"] is None else job["limit"]}, command=COMMAND,
    )
    engine.start()
    try:
        done = drive(engine, [(pool, task(exam, step)) for pool, exam, step in job["tasks"]], job["attempts"])
        room = engine.room("cpu"), engine.room("model")
    finally:
        engine.stop()
    rows = [
        {"exam": one.task["exam"], "step": one.task["step"], "attempt": one.task["attempt"], "worker": one.worker,
         "outputs": None if one.record is None else one.record["outputs"], "lost": one.lost}
        for one in done
    ]
    print(json.dumps({"rows": rows, "room": room}))
"""

#: Ray's clusters ask for one.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@pytest.fixture
def on_ray(tmp_path):
    """Starts drivers."""
    needs_ray()
    started = []

    def start(tasks, address=None, *, attempts=3, seconds=0.0, limit=None, cpu_workers=(1, 2), start=None, hang=None):
        job = {
            **{"here": str(Path(__file__).parent), "artefacts": str(tmp_path / "artefacts"), "tasks": tasks},
            **{"address": address, "attempts": attempts, "seconds": seconds, "limit": limit},
            **{"cpu_workers": cpu_workers, "start": start, "start_seconds": 600 if hang is None else 1},
        }
        seen = {} if hang is None else {"PYTHONPATH": str(hang)}
        (tmp_path / "artefacts").mkdir(exist_ok=True)
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", DRIVER, json.dumps(job)],
                env={**os.environ, **TOKEN, **seen},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finished(process) -> dict:
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return json.loads(output)


#: What Ray calls its processes: an actor, and one that is at a task.
ACTOR, AT_WORK = "ray::RayActor", "ray::RayActor.execute"


def ok(count: int, how: str = "ok"):
    return [
        *(("cpu", f"{how}-{number}", "crop") for number in range(count)),
        *(("model", f"{how}-{number}", "heatmaps") for number in range(count)),
    ]


def made(tasks) -> Counter:
    """What every workbench makes of tasks."""
    return Counter((exam, step, outputs_of(task(exam, step))) for _, exam, step in tasks)


@pytest.mark.slow
@linux
def test_two_workers_and_one_slot_give_what_one_machine_gives(on_ray):
    tasks = [*ok(15), ("cpu", "meet-1", "crop"), ("model", "meet-1", "heatmaps")]
    process = on_ray(tasks)
    told = finished(process)
    assert Counter((row["exam"], row["step"], row["outputs"]) for row in told["rows"]) == made(tasks)
    workers = {row["worker"].rsplit(" on ", 1)[0] for row in told["rows"]}
    assert "model 1" in workers
    assert workers <= {"cpu 1", "cpu 2", "model 1"}
    assert told["room"] == [4, 2]
    assert workers_of(process.pid) == []


@pytest.mark.slow
@linux
def test_poison_tasks_are_lost_each_time_and_hold_up_nobody(on_ray):
    tasks = [
        *ok(4),
        ("cpu", "poison-1", "crop"),
        ("cpu", "stuck-1", "crop"),
        *(("cpu", f"ok-{n}", "visualize") for n in range(4)),
    ]
    rows = finished(on_ray(tasks, limit=2.0))["rows"]
    lost = Counter((row["exam"], row["lost"]) for row in rows if row["outputs"] is None)
    assert lost == {("poison-1", "its worker died of SIGSEGV"): 3, ("stuck-1", "crop took more than 2 s"): 3}
    good = [one for one in tasks if one[1].startswith("ok")]
    assert Counter((row["exam"], row["step"], row["outputs"]) for row in rows if row["outputs"]) == made(good)


@pytest.mark.slow
@linux
def test_killed_actors_cost_attempts_and_nothing_else(on_ray, tmp_path):
    tasks = ok(24, "slow")
    process = on_ray(tasks, attempts=100, seconds=0.3)
    killed = []
    while process.poll() is None:
        progress = len(list((tmp_path / "artefacts").glob("done-*")))
        actors = workers_of(process.pid, AT_WORK)
        if len(killed) < min(4, progress // 8) and actors:
            os.kill(actors[0], signal.SIGKILL)
            killed.append(actors[0])
        time.sleep(0.05)
    rows = finished(process)["rows"]
    assert len(killed) == 4
    assert Counter((row["exam"], row["step"], row["outputs"]) for row in rows if row["outputs"]) == made(tasks)
    lost = [row["lost"] for row in rows if row["outputs"] is None]
    assert len(lost) <= 4
    assert all(one.startswith("its Ray worker died (") for one in lost)
    assert max(Counter((row["exam"], row["step"], row["attempt"]) for row in rows).values()) == 1


@pytest.mark.slow
@linux
@pytest.mark.parametrize("end", ["killed", "interrupted"])
def test_a_driver_that_ends_leaves_no_worker(on_ray, tmp_path, end):
    tasks = [("cpu", "busy-1", "crop"), ("cpu", "slow-2", "crop"), ("model", "slow-3", "heatmaps")]
    process = on_ray(tasks, seconds=600)
    assert wait_until(lambda: len(list((tmp_path / "artefacts").glob("begun-*"))) == 3)
    started = [*workers_of(process.pid), *workers_of(process.pid, ACTOR)]
    assert len(started) == 6
    if end == "killed":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(timeout=60) != 0
    assert wait_until(lambda: not any(is_alive(pid) for pid in started))


@pytest.mark.slow
def test_workers_that_cannot_start_name_the_cause_and_the_machine(on_ray):
    process = on_ray(ok(1), start="error")
    _, errors = process.communicate()
    host = socket.gethostname()
    expected = f"SpiculaError: worker processes cannot start (ImportError: no library here) (on the Ray machine {host})"
    assert errors.strip().splitlines()[-1].endswith(expected)


#: Python reads this at its start: in Ray's processes, and there alone, an import never ends.
HANGING = """
import sys, time

class Finder:
    def find_spec(name, path=None, target=None):
        if name == "spicula.exams.engines.ray_worker" and sys.argv[0].endswith("default_worker.py"):
            time.sleep(600)

sys.meta_path.insert(0, Finder)
"""


@pytest.mark.slow
def test_actors_that_hang_at_their_start_are_ended_and_cannot_start(on_ray, tmp_path):
    (tmp_path / "hang").mkdir()
    (tmp_path / "hang" / "sitecustomize.py").write_text(HANGING)
    process = on_ray(ok(1), hang=tmp_path / "hang")
    _, errors = process.communicate(timeout=300)
    last = errors.strip().splitlines()[-1]
    assert re.search(r"workers of the pool '(cpu|model)' cannot start \(took more than 1 s to start\)$", last)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster_at_the_address(on_ray, address):
    process = on_ray(ok(1), address)
    _, errors = process.communicate()
    assert f"UsageError: Ray does not answer at {address}; check --address" in errors


@contextmanager
def machine(*options: str, temporary: Path, hidden: Path | None = None) -> Iterator[subprocess.Popen]:
    """A machine of a cluster, which ends with the test; it does not see what is in the folder `hidden`."""
    ray = shutil.which("ray", path=Path(sys.executable).parent) or shutil.which("ray") or pytest.skip("needs ray")
    command = [ray, "start", "--block", "--object-store-memory=100000000", "--disable-usage-stats", *options]
    if hidden is not None:
        command = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden), *command]
    process = subprocess.Popen(
        command, cwd=temporary, env={**os.environ, **TOKEN}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def head(hidden: Path | None = None, cpus: int = 2) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # a short path: Ray keeps sockets below it
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as temporary:
        options = ["--head", f"--port={port}", f"--num-cpus={cpus}", '--resources={"exam_gpu": 1}']
        options += ["--include-dashboard=false", f"--temp-dir={temporary}"]
        with machine(*options, temporary=Path(temporary), hidden=hidden):
            assert wait_until(lambda: answers(port))
            time.sleep(3)  # its port answers before the machine has joined
            yield f"127.0.0.1:{port}"


@pytest.mark.slow
@linux
def test_a_cluster_that_loses_a_machine(on_ray, tmp_path):
    needs_ray()
    tasks = ok(40, "slow")
    with head(cpus=2) as address:
        with machine(f"--address={address}", "--num-cpus=2", temporary=tmp_path) as other:
            process = on_ray(tasks, address, attempts=100, seconds=0.5, cpu_workers=(1, 3))
            artefacts = tmp_path / "artefacts"
            assert wait_until(lambda: len(list(artefacts.glob("done-*"))) >= 10 or process.poll() is not None)
            for pid in [*workers_of(other.pid, "ray"), other.pid]:
                os.kill(pid, signal.SIGKILL)
        rows = finished(process)["rows"]
    assert Counter((row["exam"], row["step"], row["outputs"]) for row in rows if row["outputs"]) == made(tasks)
    assert list(artefacts.glob(".part-*")) == []


@pytest.mark.slow
@linux
def test_a_cluster_that_does_not_see_the_workspace_is_refused(on_ray, tmp_path):
    needs_ray()
    (tmp_path / "artefacts").mkdir()
    try:
        subprocess.run(["unshare", "-m", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to hide a folder from another process")
    with head(hidden=tmp_path / "artefacts") as address:
        process = on_ray(ok(1), address)
        _, errors = process.communicate()
    assert "SpiculaError: the Ray machine" in errors
    assert f"does not see {tmp_path / 'artefacts'}; put the workspace on storage that all machines share" in errors
    assert list((tmp_path / "artefacts").iterdir()) == []
