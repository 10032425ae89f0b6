"""The words that this room shares: views, sides, findings, and arrays of them."""

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Side: TypeAlias = Literal["L", "R"]
View: TypeAlias = Literal["CC", "MLO"]
Density: TypeAlias = Literal["A", "B", "C", "D"]

SIDES: tuple[Side, ...] = ("L", "R")
VIEWS: tuple[View, ...] = ("CC", "MLO")
DENSITIES: tuple[Density, ...] = ("A", "B", "C", "D")  # BI-RADS: almost entirely fatty ... extremely dense

#: Images are float32; single curves and points may be float64.
Floats: TypeAlias = NDArray[np.floating[Any]]
