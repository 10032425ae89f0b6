"""The numbers of a four-view screening classifier: window sizes, patches, margins. The published ones are the defaults.

Source: Wu N et al. (2020). Deep Neural Networks Improve Radiologists' Performance in Breast Cancer Screening. IEEE
Transactions on Medical Imaging 39(4), 1184-1194, and the behaviour of its published implementation.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Size = tuple[Annotated[int, Field(ge=32, le=8192)], Annotated[int, Field(ge=32, le=8192)]]


class ScreeningSettings(BaseModel):
    """What the stages of a four-view classifier are told besides its weights. All lengths are in pixels.

    Attributes:
        cc: height and width of the window that the classifier sees of a CC view.
        mlo: the same of an MLO view.
        erosions: iterations of the binary erosion, and of the dilation after it, that part the breast from marks.
        buffer: how far the crop goes beyond the breast.
        patch: side of the square patches of the patch classifier.
        stride: largest distance between neighbouring patches.
        shift: largest random shift of a window.
        resize: largest random change of a window's borders.
        windows: random windows of an exam that a prediction is the mean of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cc: Size = (2677, 1942)
    mlo: Size = (2974, 1748)
    erosions: Annotated[int, Field(ge=0, le=1000)] = 100
    buffer: Annotated[int, Field(ge=0, le=1000)] = 50
    patch: Annotated[int, Field(ge=32, le=1024)] = 256
    stride: Annotated[int, Field(ge=1, le=1024)] = 70
    shift: Annotated[int, Field(ge=0, le=1000)] = 100
    resize: Annotated[int, Field(ge=0, le=1000)] = 100
    windows: Annotated[int, Field(ge=1, le=100)] = 10

    @model_validator(mode="after")
    def _check_lengths(self) -> "ScreeningSettings":
        if self.stride > self.patch:
            raise ValueError(f"stride {self.stride} is larger than patch {self.patch}: there would be gaps")
        if 2 * self.resize >= min(*self.cc, *self.mlo):
            raise ValueError(f"resize {self.resize} leaves nothing of a window of {min(*self.cc, *self.mlo)} pixels")
        return self

    def size(self, view: str) -> tuple[int, int]:
        """Return height and width of the window of a view ("L-CC", "R-MLO", ...)."""
        return self.cc if view.endswith("CC") else self.mlo
