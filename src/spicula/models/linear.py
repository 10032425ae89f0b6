"""A linear classifier on standardised features, as plain numbers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spicula import files

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LinearModel:
    """What `weights.safetensors` of a run of the line `linear` holds, all float64.

    Attributes:
        mean: (F,) of the training features.
        scale: (F,) standard deviations of the training features; 1 where a feature never changes.
        coef: (F,) of the standardised features.
        intercept: added to their sum.
        slope: turns a decision value into a probability's logit: slope x value + offset (1 and 0 for logistic
            regression; Platt 1999, section 2.2, for a support vector machine).
        offset: see `slope`.
    """

    mean: Floats
    scale: Floats
    coef: Floats
    intercept: float
    slope: float = 1.0
    offset: float = 0.0

    def decision(self, features: npt.NDArray[np.float32]) -> Floats:
        """Return (N,) signed distances to the separating plane, of (N, F) features."""
        values: Floats = (features.astype(np.float64) - self.mean) / self.scale @ self.coef + self.intercept
        return values

    def probabilities(self, features: npt.NDArray[np.float32]) -> Floats:
        """Return (N,) probabilities of the positive class, of (N, F) features."""
        from scipy.special import expit

        values: Floats = expit(self.slope * self.decision(features) + self.offset)
        return values

    def save(self, path: Path) -> None:
        """Write the numbers as safetensors, atomically: mean, scale, coef (F,), intercept (1,), platt (2,)."""
        from safetensors.numpy import save

        tensors = {
            "mean": self.mean,
            "scale": self.scale,
            "coef": self.coef,
            "intercept": np.array([self.intercept]),
            "platt": np.array([self.slope, self.offset]),
        }
        files.write_bytes(path, save({name: np.ascontiguousarray(value) for name, value in tensors.items()}))


def load(path: Path) -> LinearModel:
    """Read what `LinearModel.save` has written."""
    from safetensors.numpy import load_file

    tensors = load_file(path)
    slope, offset = tensors["platt"].tolist()
    return LinearModel(
        tensors["mean"], tensors["scale"], tensors["coef"], float(tensors["intercept"][0]), slope, offset
    )
