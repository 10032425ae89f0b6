"""Where chunks of tasks are worked through: in worker processes here, or on a Ray cluster."""

from collections.abc import Iterator, Sequence
from typing import Any

from spicula.convert.sample import Task
from spicula.imaging.workers import run_tasks
from spicula.processes import command_of

#: How a worker is started.
COMMAND = command_of("spicula.convert.worker")


def run(setting: dict[str, Any], chunks: Sequence[Sequence[Task]], jobs: int) -> Iterator[tuple[str, str | None]]:
    """Work through chunks in worker processes of this machine; the death of one costs one image.

    Args:
        setting: `layouts.setting_of`.
        chunks: of tasks, each of which goes to one worker.
        jobs: most processes.

    Yields:
        The key of each task once, in no particular order, with None, or with the reason why it is rejected.

    Raises:
        SpiculaError: workers cannot start, or cannot write.
    """
    tasks = [task for chunk in chunks for task in chunk]
    numbers = iter(range(len(tasks)))
    parts = [[next(numbers) for _ in chunk] for chunk in chunks]
    for number, reason in run_tasks(COMMAND, setting, [task.as_json() for task in tasks], parts, jobs):
        yield tasks[number].key, reason
