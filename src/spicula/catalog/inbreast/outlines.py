"""The outlines of INbreast: property lists that the viewer OsiriX wrote, one file an image."""

import plistlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: Largest file that is read, in bytes; the parser takes at most about 2 s and 400 MB for what is in it.
MAX_BYTES = 2**23
#: Most points of one outline, and most outlines of one image.
MAX_POINTS = 100_000
MAX_OUTLINES = 10_000

#: What the outlines are named, in lower case, and the finding; two of the names are misspelt in the archive.
FINDINGS: Mapping[str, str] = {
    "mass": "mass",
    "calcification": "calcification",
    "calcifications": "calcification",
    "cluster": "cluster",
    "spiculated region": "spiculated region",
    "espiculated region": "spiculated region",
    "asymmetry": "asymmetry",
    "assymetry": "asymmetry",
    "distortion": "distortion",
}

# Property lists have no long tags, and the parser takes very long for one of a hundred thousand attributes.
_LONG_TAG = re.compile(rb"<[^<>]{1000}")
_NUMBER = r"\s*(-?\d{1,6}(?:\.\d{1,12})?(?:e-\d{1,2})?)\s*"
_POINT = re.compile(rf"\({_NUMBER},{_NUMBER}\)")

Point = tuple[float, float]


def read_outline(path: Path, width: int, height: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the lesions that a file outlines, and what could not be used of it or had to be changed.

    Three points or more make a polygon. One or two are marks, mostly of single calcifications, without an extent: the
    lesion is then a box of exactly the pixels that were marked.

    Args:
        path: the property list.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    try:
        outlines = list(_outlines(path))
    except ValueError as error:
        return [], [f"{error}; the image is kept without lesions"]
    lesions, problems = [], []
    for number, outline in enumerate(outlines, start=1):
        lesion, problem = _lesion(outline, width, height)
        if lesion is not None:
            lesions.append(lesion)
        if problem:
            problems.append(f"outline {number}: {problem}")
    return lesions, problems


def _outlines(path: Path) -> Iterator[Mapping[str, Any]]:
    images = _load(path).get("Images")
    if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], dict):
        raise ValueError("is not the outlines of one image")
    outlines = images[0].get("ROIs")
    if not isinstance(outlines, list) or len(outlines) > MAX_OUTLINES:
        raise ValueError(f"has no list of up to {MAX_OUTLINES} outlines")
    for outline in outlines:
        yield outline if isinstance(outline, dict) else {}


def _load(path: Path) -> dict[str, Any]:
    """Read an XML property list. plistlib refuses entity declarations and fetches nothing."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES} bytes")
    if _LONG_TAG.search(data):
        raise ValueError("is not an XML property list (a tag of over 1000 bytes)")
    try:
        content = plistlib.loads(data, fmt=plistlib.FMT_XML)
    except Exception as error:  # of hostile bytes, the parser raises nearly anything
        raise ValueError(f"is not an XML property list ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise ValueError("is not the outlines of one image")
    return content


def _lesion(outline: Mapping[str, Any], width: int, height: int) -> tuple[dict[str, Any] | None, str | None]:
    """Return a lesion of the Index, or None where there is none, and what is wrong with the outline."""
    name = outline.get("Name")
    word = " ".join(name.split()).lower() if isinstance(name, str) else ""
    finding = FINDINGS.get(word)
    problem = None if finding else f"is named {word[:40]!r}, which says no finding; kept without one"
    points = _points(outline)
    if points is None:
        return None, "has no points that can be read; left out"
    kind, coordinates, was_cut = _shape(points, width, height)
    if kind == "unlocated":
        problem = "lies outside the image; kept without a place"
    elif was_cut:
        problem = "reaches out of the image and was cut to it"
    return {"kind": kind, "coordinates": coordinates, "finding": finding}, problem


def _points(outline: Mapping[str, Any]) -> list[Point] | None:
    texts = outline.get("Point_px")
    if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_POINTS:
        return None
    if outline.get("NumberOfPoints", len(texts)) != len(texts):
        return None
    points = []
    for text in texts:
        found = _POINT.fullmatch(text) if isinstance(text, str) else None
        if not found:
            return None
        points.append((float(found[1]), float(found[2])))
    return points


def _shape(points: list[Point], width: int, height: int) -> tuple[str, list[float], bool]:
    """Return kind and coordinates of a lesion, cut to the image, and whether there was something to cut."""
    cut = [(min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))) for x, y in points]
    if len(points) < 3:
        return _marks(points, width, height)
    if not _area(cut):
        return "unlocated", [], True
    return "polygon", [value for point in cut for value in point], cut != points


def _marks(points: list[Point], width: int, height: int) -> tuple[str, list[float], bool]:
    inside = [(int(x), int(y)) for x, y in points if 0 <= x < width and 0 <= y < height]
    if not inside:
        return "unlocated", [], True
    columns, rows = zip(*inside, strict=True)
    box = [min(columns), min(rows), max(columns) + 1, max(rows) + 1]
    return "box", [float(value) for value in box], len(inside) < len(points)


def _area(points: list[Point]) -> float:
    """Return the area of the box around the points."""
    columns, rows = zip(*points, strict=True)
    return float((max(columns) - min(columns)) * (max(rows) - min(rows)))
