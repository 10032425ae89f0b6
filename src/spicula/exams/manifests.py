"""Output manifests: what a step made of an exam, as JSON values. The ledger keeps their digests."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spicula.exams import reading
from spicula.exams.types import Crop, Cropped


def described(image: Cropped, file: str) -> dict[str, Any]:
    """Return an image of the crop manifest.

    Args:
        image: cropped.
        file: name of the artefact that holds its pixels.
    """
    crop = image.crop
    height, width = image.pixels.shape
    return {
        "name": image.name,
        "view": image.view,
        "mirrored": image.mirrored,
        "window_location": list(crop.window_location),
        "rightmost_points": [list(crop.rightmost_points[0]), crop.rightmost_points[1]],
        "bottommost_points": [crop.bottommost_points[0], list(crop.bottommost_points[1])],
        "distance_from_starting_side": crop.distance_from_starting_side,
        "notes": list(image.notes),
        "height": height,
        "width": width,
        "file": file,
    }


def cropped(image: Mapping[str, Any], data: bytes) -> Cropped:
    """Return what `described` described; `data` is the content of its file."""
    rows, tip = image["rightmost_points"]
    row, columns = image["bottommost_points"]
    found = Crop(
        tuple(image["window_location"]), (tuple(rows), tip), (row, tuple(columns)), image["distance_from_starting_side"]
    )
    pixels = reading.read_crop(data)
    return Cropped(image["name"], image["view"], image["mirrored"], found, pixels, tuple(image["notes"]))


def per_image(crops: list[Cropped], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an output manifest with one entry an image, given what is said of each besides its name and view."""
    return {"images": [{"name": one.name, "view": one.view, **part} for one, part in zip(crops, parts, strict=True)]}


def files_of(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the artefacts that a manifest names: one an image, or none."""
    images: Sequence[Mapping[str, Any]] = manifest.get("images", ())
    yield from (image["file"] for image in images if "file" in image)
