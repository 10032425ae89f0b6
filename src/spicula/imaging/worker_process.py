"""What every worker process is: it speaks lines of JSON, has one core, and a limit on its memory.

In: first the setting, then chunks, each a list of tasks. Out: ["ready"], and for a chunk ["done", n] or
["rejected", n, reason] for its n-th task as soon as it is decided, ["saved", [n, ...]] when those are safe on disk,
["end"] at last; ["failed", message] when the disk is full and the like.

A process of its own, because a native decoder that crashes, hangs or eats the memory takes its process with it.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, TypeVar

from spicula.errors import RejectedImageError, SpiculaError

T = TypeVar("T")

#: How much memory a worker may take beyond what it starts with, in bytes. The largest image that `headers` lets pass
#: (120 million pixels) needs under half of it.
MEMORY_BYTES = 4 * 2**30

#: Called with each message about a task: "done", "rejected" or "saved", and what belongs to it.
Tell = Callable[..., None]
#: Works through a chunk of tasks.
Work = Callable[[list[dict[str, Any]], Tell], None]


def guarded(step: Callable[[], T], doing: str) -> T:
    """Return what `step` returns; whatever goes wrong with one image becomes a refusal of that image.

    Args:
        step: reads and changes one image.
        doing: what that is, for reasons ("preparing", "converting").

    Raises:
        RejectedImageError: with the reason, whatever went wrong.
        SpiculaError: the disk is full and the like, which is not the image's fault.
    """
    try:
        return step()
    except SpiculaError:
        raise
    except OSError as error:
        raise RejectedImageError(f"cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise RejectedImageError(f"{doing} it takes more memory than there is") from error
    except Exception as error:  # one odd image must never stop a batch
        raise RejectedImageError(f"{doing} it failed ({type(error).__name__}: {error})") from error


def serve(lines: Iterable[str], out: IO[str], begin: Callable[[dict[str, Any]], Work]) -> None:
    """Speak the protocol until the input ends.

    Args:
        lines: the input.
        out: the output.
        begin: takes the setting and returns the function that works through a chunk.
    """

    def tell(*message: Any) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    incoming = iter(lines)
    try:
        work = begin(json.loads(next(incoming)))
        tell("ready")
        for line in incoming:
            work(json.loads(line), tell)
            tell("end")
    except SpiculaError as error:
        tell("failed", str(error))
    except BrokenPipeError:
        raise
    except OSError as error:  # reading is guarded, so that it was about writing
        where = f" {error.filename}" if error.filename else ""
        tell("failed", f"cannot write{where}: {error.strerror or error}; check the folder's rights and free space")


def run(
    begin: Callable[[dict[str, Any]], Work], lines: Iterable[str] | None = None, *, is_limited: bool = True
) -> None:
    """Serve standard input and output; whatever native code prints goes to standard error instead.

    Args:
        begin: see `serve`.
        lines: the input; standard input when None.
        is_limited: hold the process to `MEMORY_BYTES`.
    """
    import cv2

    cv2.setNumThreads(1)  # there are as many workers as cores
    if is_limited:
        limit_memory()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        serve(sys.stdin if lines is None else lines, out, begin)
    except (BrokenPipeError, KeyboardInterrupt):  # the parent is gone, and so is the reason to go on
        os._exit(1)


def limit_memory() -> None:
    """Hold this process to `MEMORY_BYTES` beyond what it has now."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        return  # only Linux tells, and keeps to it
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
