"""The Ray engine: the same files as on one machine, whatever dies on the way."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from shard_tools import contents, needs
from small_archive import grey, save_png

from spicula import index
from spicula.convert import Settings, convert, ray_engine
from spicula.convert.sample import Task
from spicula.errors import UsageError


def tasks(count: int) -> list[Task]:
    return [Task(str(number), {}, "", "", 0) for number in range(count)]


def test_small_chunks_are_joined():
    chunks = [tasks(4) for _ in range(20)]
    joined = ray_engine._joined(chunks, cores=2)
    assert [len(chunk) for chunk in joined] == [8] * 10
    assert [len(chunk) for chunk in ray_engine._joined(chunks, cores=100)] == [4] * 20
    assert max(len(chunk) for chunk in ray_engine._joined([tasks(60) for _ in range(99)], cores=1)) == 120
    assert ray_engine._joined([], cores=1) == []


def test_without_ray(twenty, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs Ray: pip install 'spicula\[ray\]'"):
        convert(twenty, tmp_path / "out", Settings.of(), engine="ray")


# A process of its own for everything that starts Ray: it leaves threads, handlers and warnings behind.
RUN = """
import json, sys
from pathlib import Path
from spicula.convert import Settings, convert, engine
from spicula import index

if __name__ == "__main__":
    source, to, format, address, script = sys.argv[1:]
    if script:
        engine.COMMAND = (sys.executable, script)
    outcome = convert(
        Path(source), Path(to), Settings.of(format=format), engine="ray", address=address or None, jobs=2
    )
    print(json.dumps({"index": index.digest(outcome.index), "rejected": outcome.rejected.to_pylist()}))
"""


#: Ray's clusters ask for one.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def on_ray(source: Path, to: Path, format: str = "png16", address: str = "", script: str = ""):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(source), str(to), format, address, str(script)],
        env={**os.environ, **TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def descendants(pid: int) -> list[tuple[int, str]]:
    """Processes that a process started, directly or not, and their command lines."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended
    return [(one, names.get(one, "")) for one in parents if pid in _ancestors(one, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while (pid := parents.get(pid, 0)) > 1:
        yield pid


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def cluster(ray: Path, folder: Path) -> Iterator[str]:
    """A cluster of one machine, in a process that ends with the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # a short path: Ray keeps sockets below it
    with tempfile.TemporaryDirectory(prefix="ray-") as temporary:
        process = subprocess.Popen(
            [
                *(str(ray), "start", "--head", "--block", f"--port={port}"),
                *("--num-cpus=2", "--object-store-memory=100000000", "--include-dashboard=false"),
                *("--disable-usage-stats", f"--temp-dir={temporary}"),
            ],
            cwd=folder,
            env={**os.environ, **TOKEN},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(300):
                with socket.socket() as knocking:
                    if knocking.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            time.sleep(3)  # its port answers before the machine has joined
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def without_root(folder: Path) -> dict[str, str]:
    """Contents but for the Index, whose metadata name the folder."""
    return {name: digest for name, digest in contents(folder).items() if name != "index.parquet"}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["png16", "webdataset"])
def test_the_result_is_that_of_one_machine(twenty, tmp_path, format):
    needs("ray")
    (tmp_path / "images" / "b" / "i05.png").write_bytes(b"broken")
    local = convert(twenty, tmp_path / "local", Settings.of(format=format), jobs=2)
    process = on_ray(twenty, tmp_path / "ray", format)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert json.loads(output) == {"index": index.digest(local.index), "rejected": local.rejected.to_pylist()}
    assert without_root(tmp_path / "ray") == without_root(tmp_path / "local")
    assert [line for line in errors.splitlines() if not line.startswith("converting images")] == []
    assert descendants(process.pid) == []


@pytest.mark.slow
def test_an_image_that_kills_its_decoder_costs_that_image(twenty, tmp_path, worker_that):
    needs("ray")
    script = worker_that("if path.stem in ('i03', 'i12'): os.kill(os.getpid(), signal.SIGSEGV)")
    process = on_ray(twenty, tmp_path / "ray", script=str(script))
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    reasons = {row["path"]: row["reason"] for row in json.loads(output)["rejected"]}
    assert reasons == dict.fromkeys(("a/i12.png", "b/i03.png"), "its decoder died of SIGSEGV")
    assert len(list((tmp_path / "ray").rglob("*.png"))) == 18


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_killed_processes_of_ray_cost_nothing_but_time(tmp_path, indexed, worker_that):
    needs("ray")
    root = tmp_path / "images"
    for number in range(24):
        save_png(root / f"i{number:02}.png", grey(seed=number))
    source = indexed(root, [{"path": path.name} for path in sorted(root.glob("*.png"))])
    local = convert(source, tmp_path / "local", Settings.of(format="webdataset"), jobs=2)
    script = worker_that("time.sleep(0.4)")
    process = on_ray(source, tmp_path / "ray", "webdataset", script=str(script))
    killed: set[int] = set()
    while process.poll() is None:
        at_work = [pid for pid, name in descendants(process.pid) if name.startswith("ray::convert_chunk")]
        for pid in at_work[:1]:
            if len(killed) < 3 and pid not in killed:
                time.sleep(0.5)
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.1)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(killed) == 3
    assert json.loads(output) == {"index": index.digest(local.index), "rejected": []}  # Ray's own words are on stderr
    assert without_root(tmp_path / "ray") == without_root(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_an_interrupt_ends_everything_and_the_next_run_goes_on(twenty, tmp_path, worker_that):
    needs("ray")
    script = worker_that("time.sleep(0.5)")
    process = on_ray(twenty, tmp_path / "out", script=str(script))
    while not (found := list((tmp_path / "out").glob("[ab]/*.png"))) and process.poll() is None:
        time.sleep(0.1)
    assert found
    started = [pid for pid, _ in descendants(process.pid)]
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode != 0
    for _ in range(100):
        if not any(is_alive(pid) for pid in started):
            break
        time.sleep(0.1)
    assert [pid for pid in started if is_alive(pid)] == []
    assert len(convert(twenty, tmp_path / "out", Settings.of()).index) == 20


@pytest.mark.slow
def test_a_cluster_at_an_address(twenty, tmp_path):
    needs("ray")
    ray = Path(sys.executable).with_name("ray")
    if not ray.exists():
        ray = Path(shutil.which("ray") or pytest.skip("needs the command ray"))
    with cluster(ray, tmp_path) as address:
        process = on_ray(twenty, tmp_path / "out", address=address)
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert json.loads(output)["rejected"] == []
    assert len(list((tmp_path / "out").rglob("*.png"))) == 20


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:x"])
def test_no_cluster_at_the_address(twenty, tmp_path, address):
    needs("ray")
    process = on_ray(twenty, tmp_path / "out", address=address)
    _, errors = process.communicate()
    assert f"UsageError: Ray does not answer at {address}; check --address" in errors
