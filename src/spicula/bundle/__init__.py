"""The unit of deployment: a folder with a model, its preprocessing, its classes and where it all comes from.

Loading verifies every byte (see `bundle.sealed`). Inference needs the core install only: ONNX Runtime, no torch. What
prepares images is imported when it is first used: whoever verifies a screening bundle does without.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from spicula import __version__
from spicula.bundle import format as layout
from spicula.bundle import sealed
from spicula.bundle.format import Features, Info
from spicula.bundle.running import make_session, run_only
from spicula.errors import SpiculaError

if TYPE_CHECKING:
    from spicula.imaging.preprocess import Preprocess
    from spicula.models.settings import FeatureSettings

#: Images that go through the model at once. Small batches are quickest on a CPU, and need little memory.
BATCH = 16


@dataclass(frozen=True)
class Bundle:
    """A verified model, ready to classify.

    Attributes:
        folder: where it was read.
        info: the content of `bundle.json`.
        model: the bytes of `model.onnx` that were verified.
        threads: threads that one call of the model uses; None: one a core.
    """

    folder: Path
    info: Info
    model: bytes = field(repr=False)
    threads: int | None = None

    @property
    def name(self) -> str:
        """The model's name in the recipe that made it."""
        return self.info["name"]

    @property
    def digest(self) -> str:
        """What identifies the bundle: SHA-256 over `bundle.json`, which lists the digest of every other file."""
        return self.info["digest"]

    @property
    def target(self) -> str:
        """The class that scores are probabilities of."""
        return self.info["target"]

    @cached_property
    def preprocess(self) -> "Preprocess":
        """The preprocessing that the model was trained on."""
        from spicula.imaging.preprocess import Preprocess

        return Preprocess.model_validate(self.info["preprocessing"]["settings"])

    @cached_property
    def session(self) -> Any:
        """The ONNX Runtime session, made when it is first used."""
        return make_session(self.model, str(self.folder / layout.MODEL), self.threads)

    @cached_property
    def _features(self) -> "FeatureSettings | None":
        from spicula.models.settings import FeatureSettings

        wanted = self.info["features"]
        return FeatureSettings.model_validate(wanted["settings"]) if wanted else None

    def inputs(self, images: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        """Turn prepared images into what the graph takes.

        Args:
            images: (N, H, W, C), as `preprocess` makes them.

        Returns:
            float32: (N, C, H, W) in [0, 1] for a network, (N, F) for features of the linear line.
        """
        expected = self.preprocess
        shape = (*expected.size, expected.channels)
        dtype = np.dtype(f"uint{expected.bits}")
        if images.shape[1:] != shape or images.dtype != dtype:
            raise ValueError(f"images are {images.dtype} {images.shape}, the model takes {dtype} (N, {shape})")
        if self._features is None:
            from spicula.imaging.contrast import normalise

            return normalise(images.transpose(0, 3, 1, 2))
        from spicula.models import features

        return features.extract(images, self._features, jobs=self.threads)

    def probabilities(
        self, images: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], batch: int = BATCH
    ) -> npt.NDArray[np.float64]:
        """Classify prepared images.

        Args:
            images: (N, H, W, C) uint8 or uint16, as `preprocess` makes them and the Store holds them.
            batch: images that go through the model at once.

        Returns:
            (N, classes), each row in [0, 1] and adding up to 1; columns in the order of `info["classes"]`.
        """
        parts = [self._run(self.inputs(images[at : at + batch])) for at in range(0, len(images), batch)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.info["classes"])))

    def _run(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        (output,) = run_only(self.session, [self.info["output"]["name"]], {self.info["input"]["name"]: inputs})
        # A float32 softmax may pass 1 by a rounding error; a score is a probability.
        return np.clip(np.asarray(output, dtype=np.float64), 0.0, 1.0)


def load(folder: Path, threads: int | None = None) -> Bundle:
    """Read a bundle and verify all of it.

    Args:
        folder: the bundle.
        threads: threads that one call of the model uses; None: one a core.

    Raises:
        UsageError: there is no such folder.
        SpiculaError: a file is changed, missing or too many, or the model refers to files outside the bundle.
    """
    info, model = layout.read(Path(folder))
    return _of_this_version(Bundle(folder=Path(folder), info=info, model=model, threads=threads))


def load_description(folder: Path) -> Bundle:
    """Read the `bundle.json` of a bundle whose model runs elsewhere, to prepare images for it. It verifies itself.

    Args:
        folder: holds that file; nothing else there is looked at.

    Returns:
        The bundle without its model: `inputs` works, `probabilities` does not.

    Raises:
        UsageError: there is no such folder.
        SpiculaError: the file is missing or changed.
    """
    folder = Path(folder)
    info = sealed.described(
        folder, sealed.read_content(folder, sealed.STUDY), TypeAdapter(Info), layout.FORMAT, layout.NAMES
    )
    return _of_this_version(Bundle(folder=folder, info=info, model=b"", threads=1))


def _of_this_version(loaded: Bundle) -> Bundle:
    """Check that this version of spicula prepares images as the one that made a bundle; return the bundle."""
    from spicula.models import features

    info = loaded.info
    try:
        same = loaded.preprocess.digest() == info["preprocessing"]["digest"]
        same &= loaded._features is None or cast("Features", info["features"])["version"] == features.VERSION
    except ValidationError:
        same = False
    if not same:
        raise SpiculaError(
            f"bundle refused: {loaded.folder}: spicula {__version__} prepares images otherwise than {info['spicula']}, "
            "which made it; export it again"
        )
    return loaded
