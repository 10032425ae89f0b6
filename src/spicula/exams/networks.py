"""Loading a bundle's networks, ready to run: `runner_of` is all that stages and workers need.

    patch = runner_of(bundle, "patch")
    for probabilities in patch((window,) for window in windows):  # (N, 1, P, P) each, gives (N, 4) each
        ...
    tower = runner_of(bundle, "image-only.cc")
    for probabilities in tower((left, right) for left, right in pairs):  # (N, C, H, W) both, gives (N, 4) each
        ...

A `Runner` takes an iterable of tuples of float32 arrays, one array for each input of the graph, and gives an iterator
of float32 arrays, in the order of the inputs. It takes from the iterable only as much as it can hold in flight, so a
generator of a hundred thousand patches needs the memory of a few. N may be any number from 1, and need not be the
same every time: rows are put together and taken apart as suits the device.

What a row is answered depends on the row, the network, the precision and the device alone: not on the number of
streams, nor on the rows beside it.
"""

from spicula.bundle.screening import ScreeningBundle
from spicula.bundle.screening import format as layout
from spicula.errors import UsageError
from spicula.exams.runners.shapes import Shape
from spicula.exams.stages import STAGES
from spicula.exams.types import Precision, Runner


def runner_of(
    bundle: ScreeningBundle,
    graph: str,
    *,
    precision: Precision = "fp32",
    streams: int | None = None,
    device: str = "cpu",
    batch: int | None = None,
) -> Runner:
    """Load one of a bundle's graphs.

    Args:
        bundle: holds it.
        graph: its name: one of `bundle.graphs`.
        precision: of the arithmetic: "fp32" or "bf16". Inputs and outputs are float32 either way.
        streams: on a CPU, rows in work at a time, each on a core of its own; None: one for every core that this process
            may use. A GPU has one stream.
        device: "cpu" (OpenVINO), or "cuda" or "cuda:N" (torch).
        batch: rows that go through the network at once; None: what suits the device and the precision.

    Raises:
        UsageError: a library or the device is missing, or the device has no bf16 arithmetic.
        SpiculaError: the network cannot be loaded, or, on a GPU, is not of the published architecture.
    """
    if graph not in bundle.graphs:
        raise UsageError(f"{bundle.folder} has no network {graph}; it has {', '.join(bundle.graphs)}")
    role = layout.role_of(graph)
    inputs = (layout.PATCHES,) if role == layout.PATCH else (layout.LEFT, layout.RIGHT)
    shape = Shape(inputs, (layout.CHANNELS[role], *bundle.size_of(graph)), len(layout.EXAM_CLASSES))
    if device == "cpu":
        from spicula.exams.runners.openvino import OpenVinoRunner

        where = str(bundle.folder / f"{graph}.onnx")
        return OpenVinoRunner(bundle.graphs[graph], shape, where, precision=precision, streams=streams, batch=batch)
    if device != "cuda" and not device.startswith("cuda:"):
        raise UsageError(f"no device {device}; there are cpu, cuda and cuda:N")
    try:
        from spicula.exams.runners.torch import TorchRunner, module_of
    except ImportError as error:
        raise UsageError(f"--device {device} needs torch: pip install 'spicula[train]'") from error
    rows = batch or STAGES["heatmaps" if role == layout.PATCH else "classify"].resources.batch
    return TorchRunner(module_of(bundle, graph), shape, device=device, precision=precision, batch=rows)
