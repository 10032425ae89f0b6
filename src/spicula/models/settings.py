"""What can be set for each line of classifier, as validated data."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Triple = tuple[float, float, float]
_LINE = r"cnn|(timm|torchvision):[A-Za-z0-9_][A-Za-z0-9_.-]*"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class FeatureSettings(BaseModel):
    """Which hand-crafted features the linear line sees, and at what resolution."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: Annotated[tuple[Literal["hog", "lbp", "glcm", "intensity", "colour"], ...], Field(min_length=1)] = (
        "hog",
        "lbp",
        "glcm",
        "intensity",
        "colour",
    )  # colour: nothing for images of one channel
    # Cells along each side of the image. More of them describe where things are, and outnumber all other features: on
    # patches of tissue, 2 did better than 3, 4 and 8 in cross-validation on the training side.
    hog_cells: int = Field(default=2, ge=2, le=32)
    hog_orientations: int = Field(default=9, ge=2, le=36)
    lbp_rings: tuple[tuple[int, float], ...] = ((8, 1.0), (16, 2.0))  # (points, radius in pixels)
    glcm_distances_px: tuple[int, ...] = (1, 2, 4)
    glcm_levels: int = Field(default=32, ge=2, le=256)


class LinearSettings(BaseModel):
    """The classical baseline: hand-crafted features and a linear classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: Literal["linear"]
    name: Name = "linear"
    classifier: Literal["logistic", "svm"] = "logistic"
    features: FeatureSettings = FeatureSettings()
    c_grid: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    inner_folds: int = Field(default=5, ge=2, le=20)  # of the cross-validation that chooses C
    imbalance: Literal["none", "loss"] = "none"  # loss: each class weighs the same


class AugmentSettings(BaseModel):
    """Random changes of each training image, drawn anew in every epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip_horizontal: Probability = 0.3
    flip_vertical: Probability = 0.3
    rotate: float = Field(default=10.0, ge=0, le=180)  # degrees: an angle from -rotate to rotate
    scale: float = Field(default=0.1, ge=0, lt=1)  # a factor from 1 - scale to 1 + scale
    intensity: float = Field(default=0.1, ge=0, lt=1)  # contrast 1 +- intensity, brightness +- intensity / 2


#: What a network line uses where nothing is said. The first is the published protocol of the three-block network.
DEFAULTS: dict[str, dict[str, Any]] = {
    "cnn": {"learning_rate": 1e-3, "batch": 64, "epochs": 20, "patience": 10, "plateau_patience": 5},
    "timm": {
        "learning_rate": 1e-3,
        "backbone_learning_rate": 1e-4,
        "batch": 32,
        "epochs": 15,
        "patience": 5,
        "plateau_patience": 3,
        "augment": AugmentSettings(),
    },
}


class NetworkSettings(BaseModel):
    """A neural network and how it is trained.

    Lines: `cnn` is the three-block network; `timm:NAME` any classifier of timm, or one of torchvision where timm has
    no such name; `torchvision:NAME` one of torchvision. Where a value is not given, `DEFAULTS` of the line holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: str
    name: Name
    weights: Literal["hub"] | Path | None = None  # where training starts; None: from random numbers
    mean: Triple | None = None  # of the inputs in 0 to 1, for each channel; None: the architecture's own
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=3, max_length=3)] | None = None
    train: Literal["all", "head"] | Annotated[int, Field(ge=1)] = "all"  # a number: the head and the last N stages
    batch_norm: Literal["auto", "train", "frozen"] = "auto"  # auto: frozen where the backbone or its statistics are
    learning_rate: float = Field(gt=0)
    backbone_learning_rate: Annotated[float, Field(gt=0)] | None = None  # None: as the head
    weight_decay: float = Field(default=0.0, ge=0)
    batch: int = Field(ge=1)
    epochs: int = Field(ge=1)
    patience: int = Field(ge=1)  # epochs without a better validation score before training stops
    plateau_patience: int = Field(ge=1)  # ... before the learning rate is cut
    imbalance: Literal["none", "sampler", "loss", "undersample"] = "none"
    augment: Literal["none"] | AugmentSettings = "none"
    expand: Literal["none", "rotate-flip"] = "none"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        line = data.get("line")
        if not isinstance(line, str) or not re.fullmatch(_LINE, line):
            raise ValueError(f"line is {line!r}, which is none of linear, cnn, timm:NAME and torchvision:NAME")
        return {"name": line.partition(":")[2] or line} | DEFAULTS["cnn" if line == "cnn" else "timm"] | data

    @model_validator(mode="after")
    def _cnn_starts_at_random(self) -> "NetworkSettings":
        if self.line == "cnn" and (self.weights is not None or self.train != "all"):
            raise ValueError("the line cnn has no pretrained weights and no backbone: leave out weights and train")
        if self.train != "all" and self.weights is None:
            raise ValueError(f"train = {self.train!r} freezes a backbone of random numbers: give weights as well")
        return self


def _kind(value: Any) -> str:
    line = value.get("line") if isinstance(value, dict) else getattr(value, "line", None)
    return "linear" if line == "linear" else "network"


ModelSettings = Annotated[
    Annotated[LinearSettings, Tag("linear")] | Annotated[NetworkSettings, Tag("network")], Discriminator(_kind)
]
