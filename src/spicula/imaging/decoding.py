"""What a worker process of the Store does: read, prepare, write shards.

Started as `python -m spicula.imaging.decoding`; its setting is {"folder": ..., "preprocess": ...}, its tasks are those
of `imaging.shards`. It imports imaging and nothing heavier.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

from spicula.errors import RejectedImageError, SpiculaError
from spicula.files import sha256_file
from spicula.imaging import worker_process
from spicula.imaging.preprocess import Prepared, Preprocess
from spicula.imaging.readers import Pixels, read_pixels
from spicula.imaging.shards import Task, write_shard
from spicula.imaging.worker_process import Tell, Work

#: A shard is closed at this size, or when its first image has waited this long: that much work a kill can cost.
SHARD_BYTES = 64 * 2**20
SHARD_SECONDS = 20.0


def prepare(task: Task, preprocess: Preprocess) -> Prepared:
    """Read and prepare one image.

    Raises:
        RejectedImageError: with the reason, whatever went wrong.
    """
    if sha256_file(Path(task.path)) != task.sha256:
        raise RejectedImageError("it changed after it was indexed; index the images again")
    pixels = read_pixels(Path(task.path), task.frame)
    _refuse_almost_black(pixels, task.bits, preprocess)
    return preprocess.apply(pixels, task.laterality)


def _refuse_almost_black(pixels: Pixels, bits: int | None, preprocess: Preprocess) -> None:
    """Refuse 12-bit values in a file of 16 bits (as `spicula convert` writes `raw`), stretched from black to white.

    Nothing in the file tells how bright they are, so that a bundle, which has no Index, could not do better either.
    """
    if preprocess.contrast == "full" and bits and bits < pixels.bits and int(pixels.array.max()) < 2**bits:
        raise RejectedImageError(
            f"its values use {bits} of the {pixels.bits} bits of its file, and would come out almost black: set"
            ' contrast = "percentile", or convert with --scale-to-16'
        )


def prepare_chunk(tasks: list[Task], preprocess: Preprocess, folder: Path, tell: Tell) -> None:
    """Prepare images and write them as shards; `tell` is called with each message about a task."""
    images: list[Prepared] = []
    numbers: list[int] = []
    began = time.monotonic()
    for number, task in enumerate(tasks):
        try:
            image = worker_process.guarded(partial(prepare, task, preprocess), "preparing")
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


def _save(tasks: list[Task], numbers: list[int], images: list[Prepared], folder: Path, tell: Tell) -> None:
    try:
        write_shard(folder, [tasks[number].key for number in numbers], images)
    except OSError as error:  # numpy's own, when a disk is full in the middle of an array
        raise SpiculaError(f"cannot write to {folder}: {error}; check its free space") from error
    tell("saved", numbers)
    images.clear()
    numbers.clear()


def begin(setting: dict[str, Any]) -> Work:
    """Return what works through a chunk."""
    preprocess, folder = Preprocess.model_validate(setting["preprocess"]), Path(setting["folder"])
    return lambda tasks, tell: prepare_chunk([Task(**task) for task in tasks], preprocess, folder, tell)


def main() -> None:
    """Be a worker."""
    worker_process.run(begin)


if __name__ == "__main__":
    main()
