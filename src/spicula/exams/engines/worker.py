"""A worker process: it holds a workbench and does one step after the other.

Started as `python -m spicula.exams.engines.worker POOL`, with "cpu" or "model"; it speaks the protocol of
`imaging.worker_process`, with one task a chunk, and ["done", 0, record] for each.
"""

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from spicula.exams.types import Record, Task
from spicula.imaging import worker_process
from spicula.imaging.worker_process import Tell, Work

#: prctl(2): the signal that a process gets when the thread that started it ends.
_PR_SET_PDEATHSIG = 1


def work(execute: Callable[[Task], Record]) -> Work:
    """Return what works through a chunk by doing its tasks one by one."""

    def work_through(tasks: list[dict[str, Any]], tell: Tell) -> None:
        for number, task in enumerate(tasks):
            tell("done", number, execute(task))  # type: ignore[arg-type]

    return work_through


def begin(setting: dict[str, Any], pool: str = "cpu") -> Work:
    """Return what works through a chunk, at a workbench of that setting.

    A worker of the pool "model" loads the models before its first task, while CPU workers are at the first stages.
    """
    from spicula.exams.workbench import Workbench

    bench = Workbench(setting)  # type: ignore[arg-type]
    if pool == "model":
        bench.load_models()
    return work(bench.execute)


def run(begin: Callable[[dict[str, Any]], Work], pool: str) -> None:
    """Be a worker until the parent is gone.

    Workers of the pool "cpu" have a limit on their address space. Those that hold models have none, for libraries that
    run networks reserve far more than they use: their parent watches what they really take.

    Args:
        begin: takes the setting and returns the function that works through a chunk.
        pool: "cpu" or "model".
    """
    _end_with_parent()
    worker_process.run(begin, _read_ahead(), is_limited=pool == "cpu")


def _end_with_parent() -> None:
    """End when the parent does, whatever this process is at: native code may keep every Python thread waiting."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _read_ahead() -> Iterator[str]:
    """Yield lines that a thread reads meanwhile, so that the parent never waits; end the process when it is gone."""
    lines: queue.Queue[str] = queue.Queue()
    stream = os.fdopen(os.dup(0), encoding="utf-8")  # Python cannot end while another thread reads sys.stdin

    def read() -> None:
        for line in stream:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def main() -> None:
    """Be a worker of the pool that the command line names."""
    pool = sys.argv[1]
    run(partial(begin, pool=pool), pool)


if __name__ == "__main__":
    main()
