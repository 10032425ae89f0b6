"""Running a graph on a CPU through OpenVINO: several requests in flight, each on one core."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from spicula.errors import SpiculaError, UsageError
from spicula.exams.runners import narrow
from spicula.exams.runners.shapes import Floats, Inputs, Shape, in_batches
from spicula.exams.types import Precision
from spicula.processes import cores

#: Inputs of no more pixels are small: patches, not windows of a whole breast.
SMALL_PIXELS = 512 * 512

_BF16 = "BF16"
_TELEMETRY = "openvino_telemetry"


class OpenVinoRunner:
    """A graph, compiled for this CPU; see `exams.types.Runner`.

    Every stream has exactly one thread, so that sums are formed in the same order however many streams there are.

    Args:
        graph: an ONNX file.
        shape: of its inputs; the graph is compiled for it.
        where: the graph is from, for errors.
        precision: "fp32" or "bf16".
        streams: requests in work at a time; None: one for every core that this process may use.
        batch: rows of a request; None: 1, which is quickest but for small inputs in bf16, where it is 2.

    Raises:
        UsageError: OpenVINO is missing, or this CPU has no bf16 arithmetic.
        SpiculaError: the graph cannot be run.
    """

    def __init__(
        self,
        graph: bytes,
        shape: Shape,
        where: str,
        *,
        precision: Precision = "fp32",
        streams: int | None = None,
        batch: int | None = None,
    ) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        if precision == "bf16":
            check_bf16(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self._shape, self._batch = shape, batch or _quickest(shape, precision)
        streams = streams or cores()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "ENABLE_CPU_PINNING": False,  # several processes would all pin their threads to the same cores
        }
        try:
            model = core.read_model(graph, b"")
            # Shapes that differ from input to input pay off for large ones alone, and rows of a batch have one shape.
            may_narrow = self._batch == 1 and not _is_small(shape)
            self._given = (may_narrow and narrow.prepare(model, shape.inputs)) or self._as_they_are
            if self._given == self._as_they_are:
                model.reshape({name: [self._batch, *shape.row] for name in shape.inputs})
            self._compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            line = str(error).strip().splitlines()[-1].strip()
            raise SpiculaError(f"{where} cannot be run: {line}; a newer openvino may help") from error
        # Answers are taken in order: with twice as many requests as streams none waits for a slower one. Large inputs
        # are many megabytes each, and long under way.
        requests = 2 * streams if _is_small(shape) else streams + 1
        self._idle = [self._compiled.create_infer_request() for _ in range(requests)]

    def __call__(self, inputs: Iterable[Inputs]) -> Iterator[Floats]:
        """Run the graph on every input; `exams.types.Runner` says how."""
        return in_batches(inputs, self._shape, self._batch, self._run)

    def _run(self, batches: Iterator[Inputs]) -> Iterator[Floats]:
        flying: deque[tuple[Any, Any]] = deque()  # the arrays stay alive while a request reads them
        try:
            for arrays in batches:
                if not self._idle:
                    yield self._finish(flying)
                request, given = self._idle.pop(), self._given(arrays)
                flying.append((request, given))
                request.start_async(given, share_inputs=True)
            while flying:
                yield self._finish(flying)
        finally:
            while flying:  # whoever reads the answers has stopped, or the inputs raised
                self._finish(flying)

    def _as_they_are(self, arrays: Inputs) -> dict[str, Any]:
        return dict(zip(self._shape.inputs, arrays, strict=True))

    def _finish(self, flying: deque[tuple[Any, Any]]) -> Floats:
        request, _ = flying.popleft()
        request.wait()
        output: Floats = np.array(request.get_output_tensor(0).data)
        self._idle.append(request)
        return output


def _quickest(shape: Shape, precision: Precision) -> int:
    """Return how many rows of a request are quickest on a CPU."""
    return 2 if precision == "bf16" and _is_small(shape) else 1


def _is_small(shape: Shape) -> bool:
    height, width = shape.row[1:]
    return height * width <= SMALL_PIXELS


def check_bf16(capabilities: Iterable[str]) -> None:
    """Check that a CPU computes in bf16; OpenVINO would silently use float32 where it cannot.

    Args:
        capabilities: what OpenVINO lists of the CPU.

    Raises:
        UsageError: it does not.
    """
    if _BF16 not in capabilities:
        raise UsageError("this CPU has no bf16 arithmetic; use --precision fp32")


def import_openvino() -> ModuleType:
    """Import openvino without its telemetry, and return it.

    Its package reports every import to its makers' analytics service, from a process of its own, unless the package
    `openvino_telemetry` is missing; so that package is hidden while the import runs. Whoever needs openvino imports it
    by this function, before anything else does.

    Raises:
        UsageError: it is not installed.
    """
    if "openvino" not in sys.modules:
        hidden = sys.modules.get(_TELEMETRY)
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
        try:
            import openvino  # noqa: F401
        except ImportError as error:
            raise UsageError("running exams needs openvino: pip install 'spicula[exams]'") from error
        finally:
            del sys.modules[_TELEMETRY]
            if isinstance(hidden, ModuleType):
                sys.modules[_TELEMETRY] = hidden
    return sys.modules["openvino"]
