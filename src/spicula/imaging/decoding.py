"""What a worker process of the Store does: read, prepare, write shards.

Started as `python -m spicula.imaging.decoding`, it speaks lines of JSON. In: first {"folder": ..., "preprocess": ...},
then chunks, each a list of tasks. Out: ["ready"], and for a chunk ["done", n] or ["rejected", n, reason] for its n-th
task as soon as it is decided, ["saved", [n, ...]] when those are safe on disk, ["end"] at last; ["failed", message]
when the disk is full and the like.

A process of its own, because a native decoder that crashes, hangs or eats the memory takes its process with it. It
imports imaging and nothing heavier.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from spicula.errors import RejectedImageError, SpiculaError
from spicula.files import sha256_file
from spicula.imaging.preprocess import Prepared, Preprocess
from spicula.imaging.readers import read_pixels
from spicula.imaging.shards import Task, write_shard

#: A shard is closed at this size, or when its first image has waited this long: that much work a kill can cost.
SHARD_BYTES = 64 * 2**20
SHARD_SECONDS = 20.0

#: How much memory a worker may take beyond what it starts with, in bytes. The largest image that `headers` lets pass
#: (120 million pixels) needs under half of it.
MEMORY_BYTES = 4 * 2**30


def prepare(task: Task, preprocess: Preprocess) -> Prepared:
    """Read and prepare one image.

    Raises:
        RejectedImageError: with the reason, whatever went wrong.
    """
    try:
        if sha256_file(Path(task.path)) != task.sha256:
            raise RejectedImageError("it changed after it was indexed; index the images again")
        return preprocess.apply(read_pixels(Path(task.path), task.frame), task.laterality)
    except RejectedImageError:
        raise
    except OSError as error:
        raise RejectedImageError(f"cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise RejectedImageError("preparing it takes more memory than there is") from error
    except Exception as error:  # one odd image must never stop a batch
        raise RejectedImageError(f"cannot be prepared ({type(error).__name__}: {error})") from error


def prepare_chunk(tasks: list[Task], preprocess: Preprocess, folder: Path, tell: Callable[..., None]) -> None:
    """Prepare images and write them as shards; `tell` is called with each message of the protocol above."""
    images: list[Prepared] = []
    numbers: list[int] = []
    began = time.monotonic()
    for number, task in enumerate(tasks):
        try:
            image = prepare(task, preprocess)
        except RejectedImageError as error:
            tell("rejected", number, str(error))
            continue
        if not images:
            began = time.monotonic()
        images.append(image)
        numbers.append(number)
        tell("done", number)
        if len(images) * image.array.nbytes >= SHARD_BYTES or time.monotonic() - began >= SHARD_SECONDS:
            _save(tasks, numbers, images, folder, tell)
    if images:
        _save(tasks, numbers, images, folder, tell)


def _save(
    tasks: list[Task], numbers: list[int], images: list[Prepared], folder: Path, tell: Callable[..., None]
) -> None:
    try:
        write_shard(folder, [tasks[number].key for number in numbers], images)
    except OSError as error:  # numpy's own, when a disk is full in the middle of an array
        raise SpiculaError(f"cannot write to {folder}: {error}; check its free space") from error
    tell("saved", numbers)
    images.clear()
    numbers.clear()


def serve(lines: Iterable[str], out: IO[str]) -> None:
    """Speak the protocol until the input ends."""

    def tell(*message: Any) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    incoming = iter(lines)
    try:
        setting = json.loads(next(incoming))
        preprocess, folder = Preprocess.model_validate(setting["preprocess"]), Path(setting["folder"])
        tell("ready")
        for line in incoming:
            prepare_chunk([Task(**task) for task in json.loads(line)], preprocess, folder, tell)
            tell("end")
    except SpiculaError as error:
        tell("failed", str(error))


def main() -> None:
    """Serve standard input and output; whatever native code prints goes to standard error instead."""
    import cv2

    cv2.setNumThreads(1)  # there are as many workers as cores
    _limit_memory()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        serve(sys.stdin, out)
    except (BrokenPipeError, KeyboardInterrupt):  # the parent is gone, and so is the reason to go on
        os._exit(1)


def _limit_memory() -> None:
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


if __name__ == "__main__":
    main()
