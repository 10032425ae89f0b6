"""The process that decodes pixels for viewers: pictures of frames, and frames without their compression.

Started as `python -m spicula.serving.dicomweb.drawing`; it speaks the protocol of `imaging.worker_process`. A task
makes one file, `Task.to`; ["done", 0, true] when it is there, ["rejected", 0, reason] where it cannot be made.
"""

from pathlib import Path
from typing import Any, NotRequired, TypedDict

import cv2
import numpy as np
import numpy.typing as npt

from spicula import files
from spicula.convert import png
from spicula.errors import RejectedImageError
from spicula.imaging import worker_process
from spicula.imaging.luts import Window
from spicula.imaging.worker_process import Tell, Work
from spicula.serving.dicomweb.viewing import MOST_SIDE, PNG

Picture = npt.NDArray[np.uint8]


class Task(TypedDict):
    """What is to be made of a frame."""

    path: str  # of the object
    to: str
    frame: int  # from 0
    kind: str | None  # media type of a picture; None: the frame's values, uncompressed
    viewing: NotRequired[dict[str, Any]]  # of a picture: `viewing.Viewing`


def draw(path: Path, frame: int, kind: str, viewing: dict[str, Any]) -> bytes:
    """Return a picture of a frame, as a workstation shows it (`imaging.display`).

    Args:
        path: of the object.
        frame: from 0.
        kind: image/jpeg or image/png, of 8 bits.
        viewing: see `viewing.Viewing`.

    Raises:
        RejectedImageError: it cannot be decoded, or what is to be shown lies outside of it.
    """
    from spicula.imaging.display import read_display

    window: int | Window = Window(*viewing["window"]) if viewing["window"] else 0
    array = read_display(path, frame, 8, window).array
    picture = np.ascontiguousarray(_shown(array, viewing["region"], viewing["viewport"]))
    if kind == PNG:
        return png.encode(picture)
    order = picture if picture.ndim == 2 else picture[..., ::-1]  # OpenCV's order is BGR
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(order), [cv2.IMWRITE_JPEG_QUALITY, viewing["quality"]])
    assert done, f"OpenCV cannot encode {picture.shape}"
    return data.tobytes()


def values(path: Path, frame: int) -> bytes:
    """Return the values of a frame as Explicit VR Little Endian has them (PS3.5 annex A.2 and section 8).

    Signed values have their sign in the unused bits as well, so that they can be read as they stand.

    Args:
        path: of the object.
        frame: from 0.

    Raises:
        RejectedImageError: it cannot be decoded, or its colours are stored in a form that decoding changes.
    """
    from spicula import headers
    from spicula.imaging import dicom

    header = headers.read_header(path)
    if frame >= header.frames:
        raise RejectedImageError("the object has no such frame")
    found = dicom.read_frame(path, frame, ["BitsAllocated", "PlanarConfiguration"])
    dtype = "<u2" if int(found.dataset.BitsAllocated) == 16 else "<u1"
    if found.cells is None:
        assert found.colour is not None
        if found.photometric != "RGB":
            raise RejectedImageError(f"its colours are {found.photometric}, which decoding changes")
        colour = found.colour.astype(dtype)
        return (np.moveaxis(colour, 2, 0) if found.dataset.get("PlanarConfiguration") else colour).tobytes()
    cells = found.cells.checked()
    if cells.bits == 1:
        return np.packbits(cells.array, bitorder="little").tobytes()
    if not cells.is_signed or cells.shift:
        return cells.array.astype(dtype).tobytes()
    signed = np.ascontiguousarray(cells.values().astype(dtype)[cells.array])
    return signed.tobytes()


def _shown(array: np.ndarray, region: list[float | None], viewport: list[int] | None) -> np.ndarray:
    """Return the part of an image that is shown, at the size that fits (PS3.18 section 8.3.5.1.3)."""
    height, width = array.shape[:2]
    left, top = (round(one or 0) for one in region[:2])
    across, down = round(region[2] or width), round(region[3] or height)
    part = array[top : top + abs(down), left : left + abs(across)]
    if not part.size:
        raise RejectedImageError("the region that is to be shown lies outside of the image")
    part = part[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
    if viewport is None:
        return part
    rows, columns = part.shape[:2]
    scale = min(viewport[0] / columns, viewport[1] / rows)
    size = (min(max(1, round(columns * scale)), MOST_SIDE), min(max(1, round(rows * scale)), MOST_SIDE))
    return np.asarray(
        cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    )


def _make(task: Task) -> None:
    path, frame, kind = Path(task["path"]), task["frame"], task["kind"]
    content = values(path, frame) if kind is None else draw(path, frame, kind, task["viewing"])
    files.write_bytes(Path(task["to"]), content)


def begin(_: dict[str, Any]) -> Work:
    """Return what makes one thing after the other."""

    def work(tasks: list[dict[str, Any]], tell: Tell) -> None:
        for number, task in enumerate(tasks):
            try:
                worker_process.guarded(lambda task=task: _make(task), "drawing")  # type: ignore[misc]
                tell("done", number, True)
            except RejectedImageError as error:
                tell("rejected", number, str(error))

    return work


if __name__ == "__main__":
    worker_process.run(begin)
