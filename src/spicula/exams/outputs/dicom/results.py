"""What is written of one exam, as plain values."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import spicula
from spicula import files
from spicula.exams.outputs.detail import PredictionDetail
from spicula.exams.types import ImageFile, PatchScores


@dataclass(frozen=True)
class Algorithm:
    """What gave scores or heatmaps.

    Attributes:
        name: of the model, with that of its bundle.
        version: as its maker counts.
        digest: SHA-256 of what determines its answers, hexadecimal.
        parameters: what else it was told, one a line: "precision fp32".
    """

    name: str
    version: str
    digest: str
    parameters: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the parameters with the digest and the version of the code."""
        return [f"sha256 {self.digest}", f"Spicula {spicula.__version__}", *self.parameters]


@dataclass(frozen=True)
class Place:
    """Where the breast is in an image, as the stage `crop` found it.

    Attributes:
        window: top, bottom, left, right of the crop in the image, in pixels, bottom and right exclusive.
        mirrored: the image is stored as its mirror image.
    """

    window: tuple[int, int, int, int]
    mirrored: bool


@dataclass(frozen=True)
class Results:
    """The results of one exam.

    Attributes:
        exam_id: for messages alone.
        images: the exam's files, at least one.
        predictions: its scores, at least one.
        made: when they were made, with its time zone.
        algorithms: `model` of the predictions -> what it is; one that is not in it goes by its name and digest.
        places: image name -> where its breast is; of every image that has a heatmap.
        heatmaps: image name -> patch scores.
        heatmap_algorithm: that made the heatmaps; None where there are none.
    """

    exam_id: str
    images: Sequence[ImageFile]
    predictions: Sequence[PredictionDetail]
    made: datetime
    algorithms: Mapping[str, Algorithm] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    heatmaps: Mapping[str, PatchScores] = field(default_factory=dict)
    heatmap_algorithm: Algorithm | None = None

    def digest(self, threshold: float | None) -> str:
        """Return the SHA-256 over all of it and the threshold: what the objects' UIDs and names follow from.

        Where the files lie, and the exam's id, are no part of it.
        """
        return files.sha256_json(
            {
                "images": [[one.sha256, one.frame, one.view] for one in self.images],
                "places": [vars(self.places[one.name]) if one.name in self.places else None for one in self.images],
                "heatmaps": [_digest(self.heatmaps.get(one.name)) for one in self.images],
                "predictions": [dict(one) for one in self.predictions],
                "algorithms": {model: vars(one) for model, one in self.algorithms.items()},
                "heatmap algorithm": vars(self.heatmap_algorithm) if self.heatmap_algorithm else None,
                "made": self.made.isoformat(),
                "threshold": threshold,
                "spicula": spicula.__version__,
            }
        )


def _digest(scores: PatchScores | None) -> str | None:
    if scores is None:
        return None
    from spicula.exams.stages.heatmaps import encode

    return hashlib.sha256(encode(scores)).hexdigest()
