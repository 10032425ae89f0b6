"""Whether the graphs of a four-view classifier answer as its published form does, measured on generated inputs."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from spicula.bundle import onnx_graph
from spicula.bundle.parity import DECISION_MARGIN, TOLERANCE
from spicula.bundle.screening import format as layout
from spicula.bundle.screening.format import Parity
from spicula.bundle.screening.settings import ScreeningSettings
from spicula.errors import SpiculaError

#: Inputs that a graph is compared on: patches, and views, which are so small, besides one of full size.
INPUTS = 64
SMALL_VIEW = (96, 80)

_BATCH = 8
_SEED = 0
#: A breast's score counts as a finding from here on, for the comparison of decisions: the published model has no
#: operating point. The decision on a patch is its most probable class.
_HALF = 0.5

Floats = npt.NDArray[np.float32]


def measure(
    role: str, modules: Mapping[str, nn.Module], graphs: Mapping[str, bytes], settings: ScreeningSettings
) -> Parity:
    """Compare a network's graphs, run by ONNX Runtime, with the published form.

    Args:
        role: of the network.
        modules: the published form of each graph, by its name; returns probabilities (N, 4).
        graphs: ONNX files by the same names.
        settings: give the full sizes.

    Raises:
        SpiculaError: probabilities differ by `parity.TOLERANCE` or more, or decisions differ.
    """
    import onnxruntime

    differences, sizes, count, differ = [0.0], [], 0, 0
    for graph, module in modules.items():
        session = onnxruntime.InferenceSession(graphs[graph], _options(), providers=["CPUExecutionProvider"])
        for number, (height, width) in _sizes(graph, settings):
            for inputs in _inputs(role, number, height, width):
                found = session.run([layout.PROBABILITIES], inputs)[0]
                with torch.inference_mode():
                    expected = module(*map(torch.from_numpy, inputs.values())).numpy()
                differences.append(float(np.abs(found - expected).max()))
                differ += _decisions_differ(role, found, expected)
            sizes.append(f"{graph}: {number} x {height} x {width}")
            count += number
    parity: Parity = {
        "inputs": count,
        "sizes": sizes,
        "max_abs_difference": float(np.max(differences)),  # a NaN stays one
        "tolerance": TOLERANCE,
        "decisions_differ": differ,
        "reference": f"torch {torch.__version__}, float32, CPU",
        "onnxruntime": onnxruntime.__version__,
        "opset": onnx_graph.OPSET,
    }
    if not parity["max_abs_difference"] < TOLERANCE:
        raise SpiculaError(
            f"no bundle written: the graphs of {role} give probabilities up to {parity['max_abs_difference']:.1e} away "
            f"from those of the published form; the tolerance is {TOLERANCE:.0e}"
        )
    if differ:
        raise SpiculaError(f"no bundle written: the graphs of {role} decide {differ} inputs otherwise")
    return parity


def sentence(role: str, parity: Parity) -> str:
    """Say in one line how closely a network's graphs answer as its published form does."""
    return (
        f"{role}: probabilities of graph and published form differ by at most {parity['max_abs_difference']:.1e} on "
        f"{parity['inputs']} inputs (tolerance {parity['tolerance']:.0e}); every decision is the same"
    )


def _sizes(graph: str, settings: ScreeningSettings) -> list[tuple[int, tuple[int, int]]]:
    """Return how many inputs of which height and width a graph is compared on."""
    if graph == layout.PATCH:
        return [(INPUTS, (settings.patch, settings.patch))]
    return [(INPUTS, SMALL_VIEW), (1, settings.cc if graph.endswith("cc") else settings.mlo)]


def _inputs(role: str, number: int, height: int, width: int) -> Iterator[dict[str, Floats]]:
    """Yield batches of inputs that look a little like what a network sees: structure of all sizes, standardised."""
    rng = np.random.default_rng((_SEED, layout.ROLES.index(role), number, height, width))
    names = (layout.PATCHES,) if role == layout.PATCH else (layout.LEFT, layout.RIGHT)
    for at in range(0, number, _BATCH):
        rows = min(_BATCH, number - at)
        yield {name: np.stack([_input(rng, role, height, width) for _ in range(rows)]) for name in names}


def _input(rng: np.random.Generator, role: str, height: int, width: int) -> Floats:
    image = _texture(rng, height, width)
    image = (image - image.mean()) / image.std()
    heat = [1 / (1 + np.exp(-2 * _texture(rng, height, width))) for _ in range(layout.CHANNELS[role] - 1)]
    return np.stack([image, *heat]).astype(np.float32)


def _texture(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Return noise of random coarseness over finer noise."""
    step = int(rng.integers(2, 17))
    coarse = rng.normal(size=(-(-height // step), -(-width // step))).repeat(step, 0).repeat(step, 1)[:height, :width]
    return (coarse + rng.uniform(0, 1) * rng.normal(size=(height, width))).astype(np.float32)


def _decisions_differ(role: str, found: Floats, expected: Floats) -> int:
    if role == layout.PATCH:
        best = np.sort(expected, axis=1)
        clear = best[:, -1] - best[:, -2] > DECISION_MARGIN
        return int(((found.argmax(axis=1) != expected.argmax(axis=1)) & clear).sum())
    clear = np.abs(expected - _HALF) > DECISION_MARGIN
    return int(((found >= _HALF) != (expected >= _HALF))[clear].sum())


def _options() -> "object":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; the warnings are about optimisations
    return options
