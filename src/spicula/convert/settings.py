"""What a conversion is to make, as a frozen value with a digest."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spicula.convert.presets import preprocess_of
from spicula.errors import UsageError
from spicula.files import sha256_json
from spicula.imaging.preprocess import Preprocess

#: Part of the digest. To be raised with every change of code after which the same settings give other files.
ALGORITHM = 1

Format = Literal["png16", "png8", "webdataset", "tfrecord", "parquet", "dicom"]
Preset = Literal["raw", "display", "vindr", "whole-image"]

#: Formats of one file an image; the others put many images into a shard.
TREE_FORMATS = ("png16", "png8", "dicom")
#: How many bits a sample the presets of published studies make.
_PRESET_BITS = {"vindr": 8, "whole-image": 16}


class Settings(BaseModel):
    """What to make of every image. Each impossible combination is an error that names the way out.

    Without a format it is png8 for the preset vindr, which makes 8 bits, and png16 for the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format = Field("png16", description="what to write")
    preset: Preset = Field("raw", description="which pixels; see `spicula.convert.presets`")
    scale_to_16: bool = Field(False, description="raw: stretch the stored bits over 16 bits, instead of as they are")
    window: Annotated[int, Field(ge=0)] = Field(
        0, description="display: which of the file's VOI tables and windows, from 0; tables come first"
    )
    clahe: bool = Field(False, description="vindr: equalise local contrast (limit 2.0, tiles 8 x 8)")
    crop: bool = Field(False, description="vindr: crop to the breast (Otsu)")
    shard_mb: Annotated[int, Field(ge=1, le=65_536)] = Field(256, description="largest size of a shard, in MB (10^6)")
    deidentify: bool = Field(False, description="pseudonyms for ids and paths; PS3.15 for headers of DICOM")

    @classmethod
    def of(cls, **values: Any) -> "Settings":
        """Return validated settings.

        Raises:
            UsageError: a value is impossible, or two do not go together.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            reason = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"{place}: {reason}" if place else reason) from None

    @model_validator(mode="before")
    @classmethod
    def _fill_in_format(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("format") is None:
            return {**values, "format": "png8" if values.get("preset") == "vindr" else "png16"}
        return values

    @model_validator(mode="after")
    def _goes_together(self) -> "Settings":
        for wrong, reason in (
            (self.clahe and self.preset != "vindr", "--clahe belongs to --preset vindr"),
            (self.crop and self.preset != "vindr", "--crop belongs to --preset vindr"),
            (self.window and self.preset != "display", "--window belongs to --preset display"),
            (self.scale_to_16 and self.preset != "raw", "--scale-to-16 belongs to --preset raw"),
            (self.scale_to_16 and self.format == "png8", "--scale-to-16 needs 16 bits: --format png16"),
            (
                self.format == "dicom" and not self.deidentify,
                "--format dicom only makes sense with --deidentify; to keep files as they are, copy them",
            ),
            (
                self.format == "dicom" and self.preset != "raw",
                "--format dicom keeps pixel data byte for byte: it has no other preset than raw",
            ),
        ):
            if wrong:
                raise ValueError(reason)
        if self.format in ("png8", "png16"):
            made = _PRESET_BITS.get(self.preset, int(self.format[3:]))
            if made != int(self.format[3:]):
                raise ValueError(f"--preset {self.preset} makes {made} bits a sample: use --format png{made}")
        return self

    @property
    def preprocess(self) -> Preprocess | None:
        """The preprocessing of the preset; None for raw and display, whose pixels stay in their places."""
        return preprocess_of(self.preset, clahe=self.clahe, crop=self.crop)

    def digest(self) -> str:
        """Return a SHA-256 of all that the converted images depend on: equal digests, equal files.

        The size of shards is no part of it: it changes which file an image is in, not the image.
        """
        preprocess = self.preprocess
        return sha256_json(
            {
                "algorithm": ALGORITHM,
                "preprocess": preprocess.digest() if preprocess else None,
                **self.model_dump(mode="json", exclude={"shard_mb"}),
            }
        )
