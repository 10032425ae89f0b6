"""Chunks of a conversion as tasks of Ray: on this machine, or on a cluster whose machines share the folders.

A Ray task runs one guarded worker process, the same as on one machine (`imaging.workers`), so that an image that kills
its decoder costs that image, and results are the same. What dies beyond that (a machine, a process of Ray) costs a
chunk, which Ray hands out again.
"""

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from types import ModuleType
from typing import Any

from spicula.convert import engine
from spicula.convert.sample import Task
from spicula.errors import SpiculaError, UsageError
from spicula.imaging import workers

#: How often Ray hands out a chunk again whose process or machine died.
RETRIES = 3

#: Chunks handed to Ray at a time for each of its cores: one at work and one that waits, so that no core waits, a
#: cluster that grows on demand sees some, and the chunks of a large conversion do not all lie in Ray's memory.
CHUNKS_A_CORE = 2

#: Small chunks are joined to larger ones of at most so many images, while there are so many for each core.
MOST_IMAGES, SHARE = 128, 4

#: For Ray's shared memory on this machine, in bytes; the smallest that it takes is 75 MiB. Only paths, rows and reasons
#: go through it.
STORE_BYTES = 128 * 2**20

#: A cluster that takes no connection for so long is not there.
KNOCK_SECONDS = 10.0

#: Ray reads these when it is imported or started: it tells nobody that it was used, and leaves GPUs alone.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}

#: What became of a chunk: a pair of number and reason for each task, or why the work must stop.
_Told = list[tuple[int, str | None]] | str


def run(
    setting: dict[str, Any], chunks: Sequence[Sequence[Task]], *, address: str | None, jobs: int | None
) -> Iterator[tuple[str, str | None]]:
    """Work through chunks on Ray; see `spicula.convert.engine.run`.

    Args:
        setting: `worker.setting_of`.
        chunks: of tasks, each of which goes to one worker.
        address: of a cluster, as `ray.init` takes it. None: Ray is started on this machine, and stopped at the end.
        jobs: most chunks at a time. None: as many as there are cores.

    Yields:
        The key of each task once, in no particular order, with None, or with the reason why it is rejected.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
        SpiculaError: workers cannot start or write, or Ray gave a chunk up.
    """
    ray = _ray()
    with redirect_stdout(sys.stderr), _cluster(ray, address, jobs):  # Ray tells of dead processes on stdout
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(convert_chunk)
        waiting = deque(_joined(chunks, jobs or _cores(ray)))
        running: dict[Any, list[Task]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < (jobs or CHUNKS_A_CORE * _cores(ray)):
                    chunk = waiting.popleft()
                    running[remote.remote(engine.COMMAND[1:], setting, [task.as_json() for task in chunk])] = chunk
                done, _ = ray.wait(list(running), timeout=1.0)
                for reference in done:
                    chunk = running.pop(reference)
                    for number, reason in _result(ray, reference):
                        yield chunk[number].key, reason
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


def convert_chunk(arguments: Sequence[str], setting: dict[str, Any], tasks: list[dict[str, Any]]) -> _Told:
    """Work through a chunk in a worker process of its own: what a Ray task does.

    Args:
        arguments: of Python, to start a worker; it is the Python that Ray runs in.
        setting: see `run`.
        tasks: as JSON values.
    """
    try:
        return list(workers.run_tasks((sys.executable, *arguments), setting, tasks, [range(len(tasks))], jobs=1))
    except SpiculaError as error:
        return str(error)


def _ray() -> ModuleType:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return import_module("ray")
    except ImportError as error:
        raise UsageError("--engine ray needs Ray: pip install 'spicula[ray]'") from error


@contextmanager
def _cluster(ray: ModuleType, address: str | None, jobs: int | None) -> Iterator[None]:
    """Connect to a cluster, or start one here; leave or stop it at the end."""
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init("local", num_cpus=jobs, object_store_memory=STORE_BYTES, include_dashboard=False, **quiet)
        else:
            _knock(address)
            ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:  # Ray's own are among them
        where = (
            "does not start on this machine" if address is None else f"does not answer at {address}; check --address"
        )
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise (SpiculaError if address is None else UsageError)(f"Ray {where} ({reason})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Try a HOST:PORT at once; Ray itself would try for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()


def _cores(ray: ModuleType) -> int:
    """Return how many cores Ray has now; a cluster can grow and shrink."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _joined(chunks: Sequence[Sequence[Task]], cores: int) -> list[list[Task]]:
    """Join neighbouring chunks while that leaves each core some: every chunk costs the start of a process."""
    size = sum(len(chunk) for chunk in chunks) // (SHARE * cores)
    joined: list[list[Task]] = []
    for chunk in chunks:
        if joined and len(joined[-1]) + len(chunk) <= min(size, MOST_IMAGES):
            joined[-1] += chunk
        else:
            joined.append(list(chunk))
    return joined


def _result(ray: ModuleType, reference: Any) -> list[tuple[int, str | None]]:
    try:
        told: _Told = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise SpiculaError(
            f"Ray gave up after {RETRIES + 1} attempts ({type(error).__name__}); the same command again goes on"
        ) from error
    if isinstance(told, str):
        raise SpiculaError(told)
    return told
