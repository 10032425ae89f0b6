"""The one place of a conversion where pixels are made: a task in, a sample out, in a worker process."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from spicula.convert import png
from spicula.convert.sample import MaskTask, Sample, Task
from spicula.convert.settings import Settings
from spicula.errors import RejectedImageError
from spicula.files import sha256_file
from spicula.headers import read_dicom, read_header
from spicula.imaging.geometry import Geometry, map_lesions
from spicula.imaging.readers import Pixels, read_pixels

#: Of `spicula.index.FLAGS`.
BURNED_IN = "burned-in-annotation"


def convert_image(task: Task, settings: Settings) -> Sample:
    """Read one image, do to it what the preset says, and encode it and its masks as PNG.

    Raises:
        RejectedImageError: it cannot be read, it changed since it was indexed, or the format cannot hold it. Odd files
            can raise nearly anything else too; `imaging.worker_process.guarded` is for that.
    """
    check_source(task)
    if settings.deidentify:
        _refuse_burned_in(task)
    pixels, geometry = _pixels(task, settings)
    masks, outcomes = convert_masks(task, settings, geometry)
    image = png.encode(pixels.array)
    record = {
        "key": task.key,
        "path": task.path,
        "bytes": len(image),
        "sha256": hashlib.sha256(image).hexdigest(),
        "bits": pixels.bits,
        "photometric": "RGB" if pixels.array.ndim == 3 else "MONOCHROME2",
        "masks": outcomes,
        **geometry.to_row(),
    }
    return Sample(output_row(task.row, record, settings), image, masks, record)


def convert_masks(task: Task, settings: Settings, geometry: Geometry) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Return the masks of an image as PNG files by their output paths, and what became of each (`sample.RECORD`).

    Args:
        task: of the image.
        settings: of the conversion.
        geometry: how the image was made. A mask that is not of its source's size cannot be used.
    """
    masks: dict[str, bytes] = {}
    outcomes: list[dict[str, Any]] = []
    for mask in task.masks:
        try:
            masks[mask.path] = _mask(mask, settings, geometry)
            outcomes.append({"path": mask.path, "bytes": len(masks[mask.path]), "reason": None})
        except RejectedImageError as error:
            outcomes.append({"path": mask.path, "bytes": None, "reason": str(error)})
    return masks, outcomes


def check_source(task: Task) -> None:
    """Refuse a file that is not the one that was indexed.

    Raises:
        RejectedImageError: its digest is another.
    """
    if sha256_file(Path(task.source)) != task.sha256:
        raise RejectedImageError("it changed after it was indexed; index the images again")


def _refuse_burned_in(task: Task) -> None:
    """Refuse pixels that may name the person, as `deidentify_file` does."""
    source = Path(task.source)
    is_flagged = BURNED_IN in task.row["flags"]
    if not is_flagged and read_header(source).kind == "dicom":
        is_flagged = str(read_dicom(source).get("BurnedInAnnotation", "")).upper() == "YES"
    if is_flagged:
        raise RejectedImageError("text is burned into its pixels (Burned In Annotation), which may name the person")


def identity(height: int, width: int) -> Geometry:
    """Return the Geometry of an image whose pixels all stay where they are."""
    return Geometry(height, width, 0, 0, height, width, False, height, width, 0, 0, height, width)


def output_row(row: dict[str, Any], record: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return the row of the new Index.

    Args:
        row: `Task.row`.
        record: what became of that task, a row of `sample.RECORD`.
        settings: of the conversion.

    Returns:
        The row, with lesions in pixels of the new image. A lesion that lies outside the new image, or whose mask cannot
        be used and which has no other outline, is unlocated. Pixel spacing is that of the new rows.
    """
    geometry = Geometry.from_row(record)
    lesions = _without_lost_masks(row["lesions"], record["masks"])
    if settings.preprocess is not None:
        lesions = [
            {name: value for name, value in one.items() if name != "inside"} for one in map_lesions(lesions, geometry)
        ]
    spacing = row["pixel_spacing_mm"]
    return {
        **row,
        "lesions": lesions,
        "width": record["width"],
        "height": record["height"],
        "bits": record["bits"],
        "photometric": record["photometric"],
        "pixel_spacing_mm": spacing / geometry.scale[1] if spacing else spacing,
        "sha256": record["sha256"],
    }


def _pixels(task: Task, settings: Settings) -> tuple[Pixels, Geometry]:
    source = Path(task.source)
    if settings.preset == "display":
        from spicula.imaging.display import read_display

        bits: Literal[8, 16] = 8 if settings.format == "png8" else 16
        pixels = read_display(source, task.frame, bits, settings.window)
    else:
        pixels = read_pixels(source, task.frame)
    if settings.preprocess is not None:
        prepared = settings.preprocess.apply(pixels, task.row["laterality"])
        array = prepared.array[..., 0] if prepared.array.shape[2] == 1 else prepared.array
        return Pixels(array, settings.preprocess.bits), prepared.geometry
    if settings.format == "png8" and pixels.bits > 8:
        raise RejectedImageError(TOO_DEEP.format(bits=pixels.bits))
    if settings.scale_to_16:
        pixels = Pixels(_scale_table(pixels.bits)[pixels.array], 16)
    return pixels, identity(*pixels.array.shape[:2])


#: Why png8 does not take a raw image of more bits.
TOO_DEEP = "png8 would lose some of its {bits} bits; use --format png16, or --preset display for 8 bits as seen"


@functools.cache
def _scale_table(bits: int) -> np.ndarray:
    """Return what becomes of each value when the range of `bits` bits is stretched over 16: (2**bits,) uint16.

    Linear and rounded, so that it can be undone (W3C PNG, section 13.12).
    """
    top = 2**bits - 1
    table: np.ndarray = (np.arange(top + 1, dtype=np.int64) * 65535 + top // 2) // top
    return table.astype(np.uint16)


def _mask(task: MaskTask, settings: Settings, geometry: Geometry) -> bytes:
    values = read_pixels(Path(task.source)).array
    mask: np.ndarray = np.any(values.reshape(*values.shape[:2], -1) != 0, axis=2)
    if mask.shape != (geometry.source_height, geometry.source_width):
        raise RejectedImageError(
            f"the mask is {mask.shape[1]} x {mask.shape[0]} pixels, its image"
            f" {geometry.source_width} x {geometry.source_height}"
        )
    if settings.preprocess is not None:
        mask = geometry.mask(mask)
    return png.encode(np.where(mask, 255, 0).astype(np.uint8))


def _without_lost_masks(lesions: list[dict[str, Any]], outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lost = {outcome["path"] for outcome in outcomes if outcome["bytes"] is None}
    return [_without_mask(lesion) if lesion["mask_path"] in lost else lesion for lesion in lesions]


def _without_mask(lesion: dict[str, Any]) -> dict[str, Any]:
    return {**lesion, "kind": "unlocated" if lesion["kind"] == "mask" else lesion["kind"], "mask_path": None}
