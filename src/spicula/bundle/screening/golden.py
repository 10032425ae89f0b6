"""Inputs made by a formula, and what each graph answers to them: whether a bundle runs here as where it was made.

They are of the size that a graph sees, and resemble nothing: a square of slopes and textures on even ground, which
networks that leave even ground out (`exams.runners.narrow`) are done with in no time. Whole numbers alone make them, so
that they are the same everywhere. The counterpart of `bundle.golden`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spicula.bundle.screening import format as layout
from spicula.bundle.screening.format import Golden
from spicula.bundle.screening.settings import ScreeningSettings
from spicula.errors import SpiculaError

if TYPE_CHECKING:
    from spicula.bundle.screening import ScreeningBundle

Floats = npt.NDArray[np.float32]

#: Largest difference of a probability in float32: the one that engines are allowed on whole exams. Windows have some
#: five million pixels, over which engines sum in orders of their own.
TOLERANCE = 5e-4
#: Largest difference of a probability in bf16, whose numbers have 8 bits: the one that the service allows a study's
#: model as well.
BF16_TOLERANCE = 0.05
WORDS = "a square of slopes and textures on even ground, made by the formula of spicula.bundle.screening.golden"
#: By which a probability may be outside of 0 to 1.
_ROUNDING = 1e-4
#: Side of the square, in pixels: as large as what one place of a tower's last map depends on, or so.
_SIDE = 192


def inputs(graph: str, settings: ScreeningSettings) -> dict[str, Floats]:
    """Return the golden inputs of a graph, by the names of its inputs.

    Args:
        graph: its name, one of `ScreeningBundle.graphs`.
        settings: give the sizes.

    Returns:
        Of the patch network (2, 1, P, P); of a classifier, for left and right, (1, C, H, W). Float32, an image from -1
        to 1, heatmaps from 0 to 1; the ground is 0.
    """
    if graph == layout.PATCH:
        patch = _square(settings.patch, 0)
        return {layout.PATCHES: np.stack([patch, -patch])[:, np.newaxis]}
    size = settings.cc if graph.endswith("cc") else settings.mlo
    return {
        name: _window(size, layout.CHANNELS[layout.role_of(graph)], start)[np.newaxis]
        for start, name in enumerate((layout.LEFT, layout.RIGHT))
    }


def record(graphs: Mapping[str, bytes], settings: ScreeningSettings) -> Golden:
    """Return what `bundle.json` says: the probabilities that ONNX Runtime gets of the golden inputs, in float32.

    Args:
        graphs: ONNX files by name, verified.
        settings: give the sizes.

    Raises:
        SpiculaError: a graph cannot be run, or answers with no probabilities.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; the warnings are about optimisations
    found = {}
    for graph, data in graphs.items():
        try:
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            answer = session.run([layout.PROBABILITIES], inputs(graph, settings))[0]
        except Exception as error:  # what ONNX Runtime raises has no common base
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise SpiculaError(f"no bundle written: {graph} cannot be run: {line}") from error
        if not _are_probabilities(answer):
            raise SpiculaError(f"no bundle written: {graph} answers golden inputs with what is no probability")
        found[graph] = answer.astype(np.float64).tolist()
    return {"inputs": WORDS, "probabilities": found, "tolerance": TOLERANCE}


def check(
    bundle: "ScreeningBundle",
    graph: str,
    run: Callable[[Iterable[tuple[Floats, ...]]], Iterator[Any]],
    precision: str = "fp32",
) -> float | None:
    """See that a graph answers here as where its bundle was made.

    Args:
        bundle: holds the graph.
        graph: its name.
        run: runs it, see `exams.types.Runner`.
        precision: of the arithmetic: "fp32" or "bf16".

    Returns:
        The largest difference of a probability; None where the bundle records no answers (older bundles).

    Raises:
        SpiculaError: it answers otherwise.
    """
    golden = bundle.info.get("golden")
    if golden is None:
        return None
    (found,) = run([tuple(inputs(graph, bundle.settings).values())])
    told = np.array(golden["probabilities"][graph])
    tolerance = BF16_TOLERANCE if precision == "bf16" else golden["tolerance"]
    difference = float(np.abs(found - told).max()) if found.shape == told.shape else float("inf")
    if not difference <= tolerance:
        raise SpiculaError(
            f"{bundle.folder}: the self-test of {graph} failed: its answers to golden inputs are {difference:.1e} away "
            f"from those in bundle.json; {tolerance:.0e} is allowed"
        )
    return difference


def _window(size: tuple[int, int], channels: int, start: int) -> Floats:
    """Return (C, H, W) with a square in its middle: the image, then heatmaps."""
    side = min(_SIDE, *size)
    top, left = ((length - side) // 2 for length in size)
    window = np.zeros((channels, *size), np.float32)
    for channel in range(channels):
        square = _square(side, 2 * channel + start)
        window[channel, top : top + side, left : left + side] = (square + 1) / 2 if channel else square
    return window


def _square(side: int, start: int) -> Floats:
    """Return (side, side) from -1 to 1; every start gives another."""
    row, column = np.mgrid[:side, :side].astype(np.int64)
    slope = (row * 255 // (side - 1) + (column if start % 2 else side - 1 - column) * 255 // (side - 1)) // 2
    texture = (37 * row + 101 * column + 59 * start + row * column) % 256
    made: Floats = ((slope + texture).astype(np.float32) - 255) / 255
    return made


def _are_probabilities(answer: npt.NDArray[np.float32]) -> bool:
    return bool(np.isfinite(answer).all() and (answer >= -_ROUNDING).all() and (answer <= 1 + _ROUNDING).all())
