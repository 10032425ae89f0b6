"""What flows between the stages of an exam: plain values, nothing of files, engines or models."""

from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

#: The four views, in the order in which everything about an exam is done and listed.
VIEWS = ("L-CC", "R-CC", "L-MLO", "R-MLO")
#: The order in which a reader hangs them: the right breast on the left, backs together.
HANGING = ("R-CC", "L-CC", "R-MLO", "L-MLO")

Precision = Literal["fp32", "bf16"]
Grey16 = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Image:
    """One image of an exam, as its file stores it.

    Attributes:
        name: of the image, unique within the exam.
        view: one of VIEWS, as the header or the exam's list says.
        pixels: (H, W), dark to bright, 0 to 65535.
        mirrored: the exam's list or header says that the image is stored as its mirror image; None: nothing says.
    """

    name: str
    view: str
    pixels: Grey16
    mirrored: bool | None = None


@dataclass(frozen=True)
class Crop:
    """Where the breast is; the names and forms are those of the published classifier. All in pixels.

    Attributes:
        window_location: top, bottom, left, right of the crop in the image; bottom and right are exclusive.
        rightmost_points: ((first, last row), distance from the side the breast enters from) of its tip, in the crop.
        bottommost_points: (row, (first, last distance from that side)) of its lowest row, in the crop.
        distance_from_starting_side: columns between the image's border and the breast, where it enters.
    """

    window_location: tuple[int, int, int, int]
    rightmost_points: tuple[tuple[int, int], int]
    bottommost_points: tuple[int, tuple[int, int]]
    distance_from_starting_side: int


@dataclass(frozen=True)
class Cropped:
    """One image, cropped.

    Attributes:
        name: of the image.
        view: one of VIEWS.
        mirrored: the image is its mirror image: a left breast points to the left (`horizontal_flip` "YES").
        crop: where it was cut out.
        pixels: (h, w) of the crop.
        notes: what was found odd, and what was done about it, one sentence each.
    """

    name: str
    view: str
    mirrored: bool
    crop: Crop
    pixels: Grey16
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PatchScores:
    """What the patch classifier says of an image, which is all that its heatmaps hold.

    Positions are those in the image as the classifier saw it: a breast that points to the right (see `oriented`).

    Attributes:
        height, width: of the cropped image.
        patch: side of a patch.
        flipped: the image was mirrored for the classifier; its heatmaps are mirrored back.
        tops: (R,) int32, first row of the patches, ascending.
        lefts: (C,) int32, first column of the patches, ascending.
        malignant: (R, C) float32, probability that the patch shows a malignant finding.
        benign: (R, C) float32, the same of a benign one.
    """

    height: int
    width: int
    patch: int
    flipped: bool
    tops: npt.NDArray[np.int32]
    lefts: npt.NDArray[np.int32]
    malignant: npt.NDArray[np.float32]
    benign: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Score:
    """One score of an exam: a row of the long predictions.

    Attributes:
        side: L or R. In single-image mode also the view, for images have scores of their own: "L-CC".
        target: benign or malignant.
        score: probability, 0 to 1.
    """

    side: str
    target: str
    score: float


class Runner(Protocol):
    """A loaded network, ready to run: `exams.networks` makes them.

    Many small inputs are in flight at a time, so that all cores are busy, and results come in the order of the inputs.
    """

    def __call__(self, inputs: Any) -> Any:
        """Map an iterable of tuples of float32 arrays (N, C, H, W) to an iterator of float32 arrays, in order."""
        ...


class RefusedExamError(Exception):
    """An exam that a stage will not answer, and why: it is no failure, and it is not tried again."""


class Task(TypedDict):
    """One step of one exam, as it is handed to a worker: JSON values alone."""

    id: int
    exam: str
    step: str  # "crop", "classify:image-only", ...
    key: str  # the input key, see ledger.keys
    images: list[dict[str, Any]]  # ImageFile.as_json() of the exam's images, in order of VIEWS
    inputs: dict[str, str]  # step -> digest of its output manifest
    attempt: int  # 1, 2 or 3
    anew: NotRequired[bool]  # what it made before is lost: all is written again, also what seems to be there


class Record(TypedDict):
    """What became of a step: what a worker hands back, and what the ledger keeps."""

    exam: str
    step: str
    key: str
    status: Literal["ok", "refused", "failed"]
    outputs: str | None  # digest of the output manifest, when ok
    error: str | None  # one line
    scores: list[dict[str, Any]]  # of a classify step: side, target, score
    started: float  # POSIX time
    seconds: float
    lost: NotRequired[str]  # the step whose output was missing or damaged, where it failed of that


@dataclass(frozen=True)
class ImageFile:
    """An image of an exam, on a disk or in a bucket.

    Attributes:
        name: unique within the exam.
        view: one of VIEWS.
        path: absolute, or the address of an object (`s3://`, `gs://`).
        sha256: of the file.
        frame: which image of the file, from 0.
        mirrored: see `Image`.
    """

    name: str
    view: str
    path: str
    sha256: str
    frame: int = 0
    mirrored: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; `ImageFile(**values)` reads them."""
        return dict(vars(self))


@dataclass(frozen=True)
class ExamInput:
    """One exam as intake found it.

    Attributes:
        exam_id: unique within the workspace.
        images: in the order of VIEWS, and within a view in that of its list or Index.
        refusal: why the exam gets no score, or None.
        notes: what intake left out, and why, one sentence each.
    """

    exam_id: str
    images: tuple[ImageFile, ...]
    refusal: str | None = None
    notes: tuple[str, ...] = field(default=())
