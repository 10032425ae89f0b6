"""What a decoding process of the service does: one file at a time, from its bytes to the model's input.

Started as `python -P -m spicula.serving.decode_worker`. In: a line of JSON with every model's scope, preprocessing and
features; then for each file a line [path, digest of the model, most pixels or null]. Out: ["ready"]; then for each file
["refused", reason], or ["large"] where it has more pixels and is not read, or ["done", kind, side, geometry, what, ...]
with the dtype and shape of each array, whose bytes follow.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from spicula.bundle.format import Info, Scope
from spicula.errors import RejectedImageError
from spicula.imaging import worker_process
from spicula.imaging.preprocess import Preprocess
from spicula.models.settings import FeatureSettings
from spicula.predict import examine

#: A pipe that holds a small image whole lets the worker go on before it is read (Linux; fcntl(2), F_SETPIPE_SZ).
PIPE_BYTES = 2**20


@dataclass(frozen=True)
class Reading:
    """What a model asks of an image.

    Attributes:
        scope: which images it knows.
        preprocess: what it was trained on.
        features: of the linear line; None: the model takes the image itself.
    """

    scope: Scope
    preprocess: Preprocess
    features: FeatureSettings | None


def setting_of(infos: Iterable[Info]) -> dict[str, Any]:
    """Return the first line that a worker is told, as JSON values."""
    return {
        info["digest"]: {
            "scope": info["scope"],
            "preprocess": info["preprocessing"]["settings"],
            "features": info["features"]["settings"] if info["features"] else None,
        }
        for info in infos
    }


def read(path: Path, model: Reading, most_pixels: int | None) -> tuple[list[Any], list[np.ndarray]] | None:
    """Read one file for a model.

    Returns:
        Kind, side and geometry; and the arrays: the image (H, W, C), and the features (1, F) of the linear line. None
        where it has more pixels than the most.

    Raises:
        RejectedImageError: it gets no score, and why.
    """
    examined = examine.examine(path, model.scope)
    if most_pixels is not None and examined.pixels > most_pixels:
        return None
    prepared = examine.prepare(path, examined, model.preprocess)
    arrays = [prepared.array]
    if model.features is not None:
        from spicula.models import features

        settings = model.features
        arrays.append(
            worker_process.guarded(lambda: features.extract(prepared.array[np.newaxis], settings, jobs=1), "preparing")
        )
    return [examined.kind, examined.side, prepared.geometry.to_row()], arrays


def work(lines: Iterable[bytes], out: BinaryIO) -> None:
    """Speak the protocol until the input ends."""
    incoming = iter(lines)
    models = _readings(json.loads(next(incoming)))
    _say(out, ["ready"])
    for line in incoming:
        path, digest, most_pixels = json.loads(line)
        try:
            found = read(Path(path), models[digest], most_pixels)
        except RejectedImageError as error:
            _say(out, ["refused", str(error)])
            continue
        if found is None:
            _say(out, ["large"])
            continue
        facts, arrays = found
        shapes = [[str(array.dtype), array.shape] for array in arrays]
        _say(out, ["done", *facts, *shapes], *arrays)


def _readings(setting: Mapping[str, Any]) -> dict[str, Reading]:
    return {
        digest: Reading(
            one["scope"],
            Preprocess.model_validate(one["preprocess"]),
            FeatureSettings.model_validate(one["features"]) if one["features"] else None,
        )
        for digest, one in setting.items()
    }


def _say(out: BinaryIO, message: list[Any], *arrays: np.ndarray) -> None:
    parts = [json.dumps(message).encode() + b"\n", *(np.ascontiguousarray(array).tobytes() for array in arrays)]
    data = memoryview(b"".join(parts))
    while data:
        data = data[os.write(out.fileno(), data) :]


def main() -> None:
    """Be a worker."""
    import cv2

    cv2.setNumThreads(1)
    worker_process.limit_memory()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(out.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    # Libraries may write what they find in a file: nobody is to read that.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        work(_lines_after(sys.stdin.buffer, nowhere), out)
    except (BrokenPipeError, KeyboardInterrupt):  # the parent is gone, and so is the reason to go on
        os._exit(1)


def _lines_after(lines: BinaryIO, nowhere: int) -> Iterable[bytes]:
    """Yield the input; once the worker has come so far as to ask for a file, standard error leads nowhere."""
    yield lines.readline()
    os.dup2(nowhere, 2)
    yield from lines


if __name__ == "__main__":
    main()
