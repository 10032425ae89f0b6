"""Where converted files go: the structure of the source with `.png`, or pseudonyms; never two in one place."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

#: Suffixes that are replaced. Anything else after a dot is part of the name, as in a UID.
IMAGE_SUFFIXES = (
    *(".dcm", ".dicom", ".dic", ".ima"),
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".pgm", ".ppm", ".pnm"),
)

#: What lays claim to a name: the file that it is made from, and what of it (a frame, or a mask of which image).
Claim = tuple[str, ...]


def image_names(images: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Return the output path of every image.

    The suffix becomes `.png`. Files of which several frames are converted, or one that is not the first, get the number
    of the frame as well: `a-f003.png`. Images that would meet under one name (`a.dcm` and `a.tif`) keep their suffixes
    (`a.dcm.png`), and get a digest where that is not enough.

    Args:
        images: source path, relative with forward slashes, and frame, from 0.
    """
    images = list(dict.fromkeys(images))
    rows: dict[str, int] = {}
    for path, _ in images:
        rows[path] = rows.get(path, 0) + 1
    choices: dict[Claim, Sequence[str]] = {}
    for path, frame in images:
        part = f"-f{frame:03d}" if frame or rows[path] > 1 else ""
        choices[path, str(frame)] = _choices(path, part, (path, str(frame)))
    names = assign(choices, taken=())
    return {(path, frame): names[path, str(frame)] for path, frame in images}


def mask_names(masks: Iterable[tuple[str, int, str]], taken: Iterable[str]) -> dict[tuple[str, int, str], str]:
    """Return the output path of every mask: that of its own file, with `.png`.

    Args:
        masks: source path and frame of the image, and the mask's own source path.
        taken: names that images have.
    """
    masks = list(dict.fromkeys(masks))
    choices: dict[Claim, Sequence[str]] = {}
    for path, frame, mask in masks:
        claim = (path, str(frame), mask)
        choices[claim] = _choices(mask, "", claim)
    names = assign(choices, taken)
    return {(path, frame, mask): names[path, str(frame), mask] for path, frame, mask in masks}


def assign(choices: dict[Claim, Sequence[str]], taken: Iterable[str]) -> dict[Claim, str]:
    """Give every claim the first of its names that no other claim wants in the same round, and nobody has.

    Names are compared without regard to case, as some file systems do, and none becomes a folder of another. The result
    does not depend on the order of claims.
    """
    names: dict[Claim, str] = {}
    used = {name.casefold() for name in taken}
    folders = {folder for name in used for folder in _folders(name)}
    open_claims = sorted(choices)
    turn = 0
    while open_claims:
        wanted: dict[str, list[Claim]] = {}
        for claim in open_claims:
            name = choices[claim][min(turn, len(choices[claim]) - 1)].casefold()
            wanted.setdefault(name, []).append(claim)
        folders |= {folder for name in wanted for folder in _folders(name)}
        is_last = turn >= max(len(choices[claim]) for claim in open_claims) - 1
        for name, claims in wanted.items():
            if is_last or (len(claims) == 1 and name not in used and name not in folders):
                for claim in claims:
                    names[claim] = choices[claim][min(turn, len(choices[claim]) - 1)]
        used |= wanted.keys()
        open_claims = [claim for claim in open_claims if claim not in names]
        turn += 1
    return names


def stem_of(path: str) -> str:
    """Return a path without the suffix of an image format, if it has one."""
    suffix = PurePosixPath(path).suffix
    return path[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else path


def pseudonymous(patient: str | None, exam: str | None, image: str, suffix: str) -> str:
    """Return the output path of an image whose ids are pseudonyms; a level that is not known is left out."""
    return "/".join(part for part in (patient, exam, re.sub(r"[^A-Za-z0-9.-]", "-", image) + suffix) if part)


def _choices(path: str, part: str, claim: Claim) -> tuple[str, ...]:
    digest = hashlib.sha256("\0".join(claim).encode()).hexdigest()[:16]
    return f"{stem_of(path)}{part}.png", f"{path}{part}.png", f"{path}{part}-{digest}.png"


def _folders(name: str) -> list[str]:
    return [str(folder) for folder in PurePosixPath(name).parents][:-1]
