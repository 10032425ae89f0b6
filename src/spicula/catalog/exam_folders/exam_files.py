"""The files of exam folders: which view each image is by its name, which file a name of a list means, masks."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from spicula import headers
from spicula.catalog.exam_folders.exam_list import Side
from spicula.catalog.tree import Rejection, is_document, is_text, reject
from spicula.errors import RejectedImageError

#: Folders of lesion masks, beside the images or beside their folder.
MASK_FOLDERS = ("segmentation", "segmentations")
_IMAGE_FOLDER = "images"
_VIEW = re.compile(r"(?:(?P<exam>.+?)[_ -])?(?P<side>[LR])[_ -]?(?P<view>CC|MLO)(?:[_ -]\d{1,3})?", re.IGNORECASE)
_MASK = re.compile(r"(?P<image>.+)_(?P<pathology>benign|malignant)", re.IGNORECASE)
_PICKLES = (".pkl", ".pickle")


@dataclass(frozen=True)
class NamedView:
    """What the name of an image says.

    Attributes:
        exam: folder and what stands before the view; "" for the root.
        side: which breast.
        view: CC or MLO.
    """

    exam: str
    side: Side
    view: str


@dataclass
class Files:
    """What lies in a folder of exams.

    Attributes:
        root: the folder's name, which is that of an exam whose images lie in it.
        images: path -> what its name says; None where it says nothing.
        lists: paths of exam lists.
        masks: paths below a folder of masks.
        rejected: names that are no text.
    """

    root: str
    images: dict[str, NamedView | None] = field(default_factory=dict)
    lists: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._by_name: dict[str, list[str]] = {}

    def add(self, path: str) -> None:
        """Sort a file in by its name; documents are passed over."""
        lower = path.lower()
        if not is_text(path):
            self.rejected.append(reject(path, "the name is not in UTF-8"))
        elif lower.endswith(_PICKLES) or (lower.endswith(".json") and "list" in lower.rpartition("/")[2]):
            self.lists.append(path)
        elif is_document(path):
            return
        elif path.count("/") and lower.split("/")[-2] in MASK_FOLDERS:
            self.masks.append(path)
        else:
            named = parse(path)
            self.images[path] = named if named is None or named.exam else replace(named, exam=self.root)
            self._by_name.setdefault(_plain(stem(path)).rpartition("/")[2], []).append(path)

    def find(self, name: str, beside: str) -> tuple[str | None, str]:
        """Return the image that a name means, or None and why there is none.

        Case does not count, nor whether parts are joined by - or _. Of several files of the name, that in the folder
        itself is taken, then that in its folder `images`.

        Args:
            name: as a list has it: without extension, maybe with folders.
            beside: the folder that the list lies in, "" for the root.
        """
        plain = _plain(name)
        found = self._by_name.get(plain.rpartition("/")[2], [])
        found = [path for path in found if f"/{_plain(stem(path))}".endswith(f"/{plain}")]
        for folder in (beside, f"{beside}/{_IMAGE_FOLDER}".lstrip("/")):
            here = [path for path in found if path.rpartition("/")[0] == folder]
            exact = [path for path in here if stem(path).rpartition("/")[2] == name.rpartition("/")[2]]
            if len(here) == 1 or len(exact) == 1:
                return (exact or here)[0], ""
        if len(found) == 1:
            return found[0], ""
        return None, "is there several times: indexed by their own names alone" if found else "is not there"


def stem(path: str) -> str:
    """Return a path without the extension of its file."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def _plain(name: str) -> str:
    return re.sub(r"[_ -]+", "-", name.lower())


def parse(path: str) -> NamedView | None:
    """Return what the name of an image says: L_CC, R-MLO_2 and 0_L-CC are views, and 0 is an exam."""
    folder, _, name = stem(path).rpartition("/")
    found = _VIEW.fullmatch(name)
    if not found:
        return None
    exam = "/".join(part for part in (folder, found["exam"]) if part)
    return NamedView(exam, cast("Side", found["side"].upper()), found["view"].upper())


@dataclass(frozen=True)
class Mask:
    """A lesion mask.

    Attributes:
        image: path of the image that it belongs to.
        path: of the mask; None where it does not fit the image, so that only the lesion's nature is known.
        pathology: benign or malignant.
    """

    image: str
    path: str | None
    pathology: str


def masks(folder: Path, found: Files) -> tuple[list[Mask], list[Rejection]]:
    """Return the masks of images, by their names (L_CC_benign for L_CC), and what is wrong with others."""
    read, rejected = [], []
    for path in found.masks:
        match = _MASK.fullmatch(stem(path).rpartition("/")[2])
        if not match:
            rejected.append(reject(path, "a mask whose name does not end with _benign or _malignant"))
            continue
        image, reason = found.find(match["image"], path.rpartition("/")[0].rpartition("/")[0])
        if image is None:
            rejected.append(reject(path, f"a mask of an image that {reason}"))
            continue
        problem = _misfit(folder, path, image)
        if problem:
            rejected.append(reject(path, f"{problem}; the lesion is indexed without its place"))
        read.append(Mask(image, None if problem else path, match["pathology"].lower()))
    return read, rejected


def _misfit(folder: Path, path: str, image: str) -> str | None:
    try:
        mask = headers.read_header(folder / path)
        of = headers.read_header(folder / image)
    except RejectedImageError as error:
        return f"the mask or its image cannot be used: {error}"
    if (mask.width, mask.height) == (of.width, of.height):
        return None
    return f"the mask has {mask.width} x {mask.height} pixels, but {image} {of.width} x {of.height}"
