"""The one preprocessing of training, evaluation, prediction and service, as a frozen value with a digest."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from spicula.files import sha256_json
from spicula.imaging import contrast
from spicula.imaging.breast import bounding_box, faces_left, segment_breast, widen
from spicula.imaging.geometry import Geometry, resize_area
from spicula.imaging.readers import Pixels

#: Part of the digest. To be raised with every change of code after which the same settings give other pixels.
ALGORITHM = 2

#: How much farther than its mask the breast is taken to reach, as a share of the longer side: the mask can miss the
#: almost black rim of fatty tissue.
MARGIN = 0.02

Side = Annotated[int, Field(ge=8, le=8192)]
Percentile = Annotated[float, Field(ge=0, le=100)]


@dataclass(frozen=True)
class Prepared:
    """An image ready for a model.

    Attributes:
        array: (H, W, C), uint8 or uint16, over the whole range of its dtype.
        geometry: where its pixels come from.
    """

    array: np.ndarray
    geometry: Geometry


class Preprocess(BaseModel):
    """What happens to an image between its file and a model. The defaults suit patches of stained tissue.

    In this order: find the breast (where crop, orient or background ask for it), crop, mirror, resize, black out what
    is not breast, stretch the intensities, round to whole numbers, equalise local contrast, pad.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: tuple[Side, Side] = Field((128, 128), description="rows and columns of the result, in pixels")
    channels: Literal[1, 3] = Field(3, description="1: grey (colour becomes luma); 3: RGB (grey is repeated)")
    bits: Literal[8, 16] = Field(8, description="stored bits a sample")
    crop: Literal["none", "breast"] = Field(
        "none", description="breast: to the window around the breast, with a margin"
    )
    orient: bool = Field(False, description="mirror images so that every breast enters from the left edge")
    background: Literal["keep", "black"] = Field("keep", description="black: labels and film around the breast go")
    keep_aspect: bool = Field(False, description="scale both sides alike and pad with black, instead of stretching")
    contrast: Literal["full", "percentile"] = Field(
        "full", description="what becomes black and white: the ends of the stored bits, or percentiles of the image"
    )
    percentiles: tuple[Percentile, Percentile] = Field(
        (0.5, 99.5), description="lower and upper, of the breast where it was found; (0, 100): smallest and largest"
    )
    clahe: Annotated[float, Field(ge=1, le=100)] | None = Field(
        None, description="limit of local contrast equalisation (2 to 4 is usual); null: none"
    )

    @model_validator(mode="after")
    def _percentiles_in_order(self) -> "Preprocess":
        low, high = self.percentiles
        if low >= high:
            raise ValueError(f"percentiles {low} and {high}: the first must be below the second")
        return self

    @property
    def needs_breast(self) -> bool:
        """Whether the breast is looked for: then, with `orient`, the laterality can change the result as well."""
        return self.crop == "breast" or self.orient or self.background == "black"

    def digest(self) -> str:
        """Return a SHA-256 of these settings and of the algorithm's version: equal digests mean equal pixels."""
        return sha256_json({"algorithm": ALGORITHM, **self.model_dump(mode="json")})

    def apply(self, pixels: Pixels | np.ndarray, laterality: str | None = None) -> Prepared:
        """Prepare one image.

        Args:
            pixels: as `read_pixels` returns them, or an array alone, (H, W) or (H, W, 3) uint8 or uint16, which is
                taken to use all bits of its dtype.
            laterality: side of the patient (L or R), which with `orient` decides where the pixels do not.

        Returns:
            The image as (H, W, C), and its geometry. Where no breast is found, the whole image is used, not mirrored.
        """
        if isinstance(pixels, np.ndarray):
            pixels = Pixels(pixels, 8 * pixels.dtype.itemsize)
        image = pixels.array
        if self.channels == 1:
            image = contrast.to_grey(image)
        breast = segment_breast(pixels.array) if self.needs_breast else None
        if breast is not None and not breast.any():
            breast = None
        geometry = self._geometry(image.shape[:2], breast, laterality)
        # In floating point, to be rounded once, at the end.
        scaled = resize_area(geometry.cropped(image).astype(np.float32), geometry.scaled_size)
        mask = geometry.scaled(breast.astype(np.float32)) >= 0.5 if breast is not None else None
        low, high = 0.0, float(2**pixels.bits - 1)
        if self.contrast == "percentile":
            low, high = contrast.value_range(scaled, self.percentiles, mask)
        if self.background == "black" and mask is not None:
            scaled[~widen(mask, MARGIN)] = 0
        result = contrast.quantise(contrast.rescale(scaled, low, high), self.bits)
        if self.clahe is not None:
            result = contrast.clahe(result, self.clahe)
        if self.channels == 3:
            result = contrast.to_rgb(result)
        result = geometry.placed(result.reshape(*result.shape[:2], self.channels))
        return Prepared(np.ascontiguousarray(result), geometry)

    def _geometry(self, source: tuple[int, ...], breast: np.ndarray | None, laterality: str | None) -> Geometry:
        top, left, bottom, right = 0, 0, *source
        if breast is not None and self.crop == "breast":
            top, left, bottom, right = bounding_box(breast, MARGIN) or (top, left, bottom, right)
        height, width = scaled_height, scaled_width = self.size
        if self.keep_aspect:
            scale = min(height / (bottom - top), width / (right - left))
            scaled_height = min(height, max(1, round((bottom - top) * scale)))
            scaled_width = min(width, max(1, round((right - left) * scale)))
        return Geometry(
            source_height=source[0],
            source_width=source[1],
            crop_top=top,
            crop_left=left,
            crop_height=bottom - top,
            crop_width=right - left,
            flipped=self.orient and breast is not None and faces_left(breast, laterality),
            scaled_height=scaled_height,
            scaled_width=scaled_width,
            pad_top=(height - scaled_height) // 2,
            # The chest wall stays at the left edge; anything else goes to the middle.
            pad_left=0 if self.orient else (width - scaled_width) // 2,
            height=height,
            width=width,
        )
