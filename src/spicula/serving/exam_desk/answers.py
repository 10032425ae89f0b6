"""The form of what is said of exams, as JSON."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from spicula import RESEARCH_NOTICE

Status = Literal["waiting", "running", "done", "refused", "failed"]
#: Where an exam is from: sent to the service, or run by others in the same workspace.
Origin = Literal["sent", "ledger"]
_NAME: Any = Field(description="what the ledger calls an exam that was not sent to the service")
View = Literal["L-CC", "R-CC", "L-MLO", "R-MLO"]
Target = Literal["malignant", "benign"]


class Links(BaseModel):
    """Where the results of an exam are; null where there can be none."""

    self: str
    report: str | None = Field(description="a page with everything, to be kept and printed")
    sr: str | None = Field(description="DICOM Structured Report")
    sc: str | None = Field(description="DICOM Secondary Captures of the heatmaps, as a zip; view=L-CC gives one")
    seg: str | None = Field(description="DICOM Segmentations of the heatmaps, as a zip; view=L-CC gives one")


class AcceptedExam(BaseModel):
    """An exam that was sent."""

    id: str
    status: Status
    is_known: bool = Field(description="the same images were sent before: it is the same exam")
    links: Links
    notice: str = RESEARCH_NOTICE


class StepProgress(BaseModel):
    """A step of an exam, as far as it has come."""

    step: str = Field(description="crop, centers, heatmaps, visualize, classify:MODEL")
    status: Literal["waiting", "running", "ok", "refused", "failed", "blocked"]


class Progress(BaseModel):
    """How far an exam is."""

    done: int = Field(description="steps that are done, refused or failed")
    total: int
    steps: list[StepProgress]
    ahead: int = Field(description="exams that came before it and are not finished")


class Prediction(BaseModel):
    """A score."""

    model: str
    side: str = Field(description="left, right")
    target: str = Field(description="malignant, benign")
    score: float = Field(ge=0, le=1)


class Model(BaseModel):
    """A model that scores were made with."""

    name: str
    bundle: str | None = Field(description="how its bundle calls itself")
    version: str | None
    digest: str = Field(description="SHA-256 of the bundle")
    networks: str = Field(description="SHA-256 of the networks that made the scores")


class Reached(BaseModel):
    """What an operating point makes of a breast's score."""

    side: str
    score: float
    is_reached: bool


class OperatingPoint(BaseModel):
    """A threshold that a bundle states, and what it makes of the scores."""

    model: str
    target: str
    rule: str
    threshold: float
    breasts: list[Reached]
    meaning: str


class Geometry(BaseModel):
    """Where the breast is, in pixels; the names are those of the published classifier."""

    window_location: list[int] | None = Field(description="top, bottom, left, right of the crop in the image")
    best_center: list[int] | None = Field(description="y, x in the crop, as the classifier sees it")
    rightmost_points: list[Any] | None
    bottommost_points: list[Any] | None
    distance_from_starting_side: int | None


class ImageLinks(BaseModel):
    """Where pictures of an image are; null where there are none."""

    whole: str
    crop: str | None
    heatmap_malignant: str | None
    heatmap_benign: str | None


class ExamImage(BaseModel):
    """An image of an exam."""

    view: str
    number: int = Field(description="from 1: which of several images of the view")
    sha256: str = Field(description="of the file")
    frame: int
    is_mirrored: bool | None = Field(description="it is stored as its mirror image; turn it to hang it")
    geometry: Geometry
    notes: list[str] = Field(description="what was found odd, and what was done about it")
    links: ImageLinks


class Stage(BaseModel):
    """A step that was done."""

    step: str
    stage: str
    version: int | None
    status: str
    error: str | None
    attempts: int | None
    seconds: float | None
    time: str | None
    engine: str | None
    spicula: str | None
    networks: dict[str, str]
    parameters: dict[str, Any]


class ExamAnswer(BaseModel):
    """An exam: how far it is, and what came out of it."""

    id: str
    origin: Origin
    name: str | None = _NAME
    status: Status
    time: str = Field(description="when it was accepted, ISO 8601, UTC")
    started: str | None
    finished: str | None
    progress: Progress
    reasons: list[str] = Field(description="why it was refused, or failed")
    notes: list[str]
    is_mirrored: bool | None
    predictions: list[Prediction]
    operating_points: list[OperatingPoint]
    images: list[ExamImage] = Field(description="in hanging order: R-CC, L-CC, R-MLO, L-MLO")
    models: list[Model]
    stages: list[Stage]
    links: Links
    notice: str = RESEARCH_NOTICE


class ExamSummary(BaseModel):
    """An exam in a list."""

    id: str
    origin: Origin
    name: str | None = _NAME
    status: Status
    time: str
    finished: str | None
    score: float | None = Field(description="the highest malignant score of its breasts and models")
    predictions: list[Prediction]


class ExamList(BaseModel):
    """Exams."""

    exams: list[ExamSummary]
    total: int = Field(description="that the search finds")
    offset: int
    notice: str = RESEARCH_NOTICE
