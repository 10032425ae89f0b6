"""Chunks of a conversion as tasks of Ray: on this machine, or on a cluster whose machines share the folders.

A Ray task runs one guarded worker process, the same as on one machine (`imaging.workers`), so that an image that kills
its decoder costs that image, and results are the same. What dies beyond that (a machine, a process of Ray) costs a
chunk, which Ray hands out again.
"""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from spicula import cluster
from spicula.convert import engine
from spicula.convert.sample import Task
from spicula.errors import SpiculaError
from spicula.imaging import workers

#: How often Ray hands out a chunk again whose process or machine died.
RETRIES = 3

#: Chunks handed to Ray at a time for each of its cores: one at work and one that waits, so that no core waits, a
#: cluster that grows on demand sees some, and the chunks of a large conversion do not all lie in Ray's memory.
CHUNKS_A_CORE = 2

#: Small chunks are joined to larger ones of at most so many images, while there are so many for each core.
MOST_IMAGES, SHARE = 128, 4

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
    ray = cluster.load_ray()
    with cluster.connected(ray, address, {"num_cpus": jobs}):
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(convert_chunk)
        waiting = deque(_joined(chunks, jobs or cluster.cores(ray)))
        running: dict[Any, list[Task]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < (jobs or CHUNKS_A_CORE * cluster.cores(ray)):
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
