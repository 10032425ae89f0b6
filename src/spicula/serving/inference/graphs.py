"""What computes a bundle's graph, for several threads at once: ONNX Runtime on the CPU or a GPU, or OpenVINO."""

import io
import threading
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from spicula.bundle import golden
from spicula.bundle.running import CPU, CUDA, make_session, run_only
from spicula.errors import SpiculaError, UsageError

if TYPE_CHECKING:
    from spicula.bundle import Bundle

Precision = Literal["fp32", "bf16"]
Floats = npt.NDArray[np.float32]

#: Rows of features that the linear line takes at a time: each costs next to nothing.
_FEATURE_ROWS = 256
#: Threads of an image that is alone: what more of them gain is soon lost to their waiting for each other.
_MOST_THREADS = 4
#: Images that a GPU takes at a time, and how long the first of them waits for others.
_GPU_BATCH, _GPU_LINGER_SECONDS = 16, 0.004


@dataclass(frozen=True)
class Answer:
    """What a graph says of some rows.

    Attributes:
        probabilities: (N, classes), float64, in [0, 1].
        evidence: (N, h, w), see `bundle.explanation`; None where it was not asked for.
    """

    probabilities: npt.NDArray[np.float64]
    evidence: Floats | None


@dataclass(frozen=True)
class Manner:
    """How a graph likes to be asked.

    Attributes:
        provider: "onnxruntime", "openvino" or "cuda".
        precision: of its arithmetic.
        rows: most rows of a question.
        batch: most questions that are put together. More than one helps a GPU alone: a CPU is quickest with one image
            on each core.
        linger_seconds: how long the first question of a batch waits for others.
    """

    provider: str
    precision: Precision
    rows: int = 1
    batch: int = 1
    linger_seconds: float = 0.0


class Graph(Protocol):
    """A graph, ready to run."""

    manner: Manner

    def run(self, inputs: Floats, evidence: bool, is_alone: bool) -> Answer:
        """Run the graph on one batch.

        Args:
            inputs: (N, C, H, W) or (N, F).
            evidence: what spoke for the target is wanted as well; only where the bundle has an explanation.
            is_alone: nothing else runs or waits, so that this may use all cores. The answer is the same.
        """
        ...


def open_graph(bundle: "Bundle", provider: str, precision: Precision, workers: int) -> Graph:
    """Load a bundle's graph.

    Args:
        bundle: the model.
        provider: "onnxruntime", "openvino" or "cuda". The linear line always runs on the CPU, by ONNX Runtime: its
            graph takes microseconds.
        precision: "bf16" with openvino alone.
        workers: runs at a time.

    Raises:
        UsageError: the provider is missing here, or has no such arithmetic.
        SpiculaError: the graph cannot be run.
    """
    if precision == "bf16" and provider != "openvino":
        raise UsageError(f"--provider {provider} has no bf16 arithmetic here; use --provider openvino")
    if provider == "onnxruntime" or bundle.info["features"]:
        return _OnnxGraph(bundle, CPU, workers)
    if provider == "cuda":
        return _OnnxGraph(bundle, CUDA, workers)
    return _OpenVinoGraph(bundle, precision, workers)


def _outputs(bundle: "Bundle") -> list[str]:
    explanation = bundle.info.get("explanation")
    return [bundle.info["output"]["name"], *([explanation["name"]] if explanation else [])]


def _answer(probabilities: Any, evidence: Any = None) -> Answer:
    # A float32 softmax may pass 1 by a rounding error; a score is a probability.
    return Answer(np.clip(np.asarray(probabilities, np.float64), 0.0, 1.0), evidence)


class _OnnxGraph:
    """One thread for each image, or several where an image is alone.

    Images that run side by side, each on one core, come through in the least time together; one that is alone would
    leave the other cores idle. ONNX Runtime has no number of threads for a run, so there are two sessions.
    """

    def __init__(self, bundle: "Bundle", providers: tuple[tuple[str, dict[str, str]], ...], workers: int) -> None:
        import onnxruntime

        first = providers[0][0]
        is_gpu = first != CPU[0][0]
        if is_gpu:
            if first not in onnxruntime.get_available_providers():
                raise UsageError(
                    "--provider cuda needs onnxruntime for CUDA: pip uninstall onnxruntime; "
                    "pip install 'onnxruntime-gpu[cuda,cudnn]'"
                )
            with redirect_stdout(io.StringIO()):  # it prints what it does not find, and goes on
                onnxruntime.preload_dlls()
        where = f"--provider cuda: {bundle.folder}" if is_gpu else str(bundle.folder)
        self._session = make_session(bundle.model, where, threads=1, providers=providers)
        if first not in self._session.get_providers():  # onnxruntime leaves it out without an error
            raise SpiculaError(
                "--provider cuda: onnxruntime finds no CUDA device, or not the libraries that it needs: "
                "pip install 'onnxruntime-gpu[cuda,cudnn]', and see nvidia-smi"
            )
        self._input, self._outputs = bundle.info["input"]["name"], _outputs(bundle)
        if is_gpu:
            self.manner = Manner("cuda", "fp32", batch=_GPU_BATCH, linger_seconds=_GPU_LINGER_SECONDS)
        else:
            self.manner = Manner("onnxruntime", "fp32", rows=_FEATURE_ROWS if bundle.info["features"] else 1)
        self._alone = self._session
        threads = min(workers, _MOST_THREADS)
        if threads > 1 and not is_gpu and not bundle.info["features"]:
            self._alone = make_session(bundle.model, where, threads=threads, providers=providers, spins=False)
            if not self._is_same(bundle):
                self._alone = self._session

    def _is_same(self, bundle: "Bundle") -> bool:
        """Return whether the golden inputs get the same answers from both sessions, to the last bit."""
        inputs = bundle.inputs(golden.images(bundle.preprocess))
        found = [
            self.run(inputs[at : at + 1], len(self._outputs) > 1, is_alone)
            for is_alone in (False, True)
            for at in range(len(inputs))
        ]
        return all(
            np.array_equal(one.probabilities, other.probabilities)
            and (one.evidence is None or other.evidence is None or np.array_equal(one.evidence, other.evidence))
            for one, other in zip(found[: len(inputs)], found[len(inputs) :], strict=True)
        )

    def run(self, inputs: Floats, evidence: bool, is_alone: bool) -> Answer:
        session = self._alone if is_alone else self._session
        return _answer(*run_only(session, self._outputs if evidence else self._outputs[:1], {self._input: inputs}))


class _OpenVinoGraph:
    """One stream for each worker, each with one thread: sums are formed in one order, whatever runs beside them."""

    def __init__(self, bundle: "Bundle", precision: Precision, workers: int) -> None:
        from spicula.exams.runners.openvino import check_bf16, import_openvino

        try:
            openvino = import_openvino()
        except UsageError as error:
            raise UsageError("--provider openvino needs openvino: pip install 'spicula[exams]'") from error
        core = openvino.Core()
        if precision == "bf16":
            check_bf16(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "NUM_STREAMS": workers,
            "INFERENCE_NUM_THREADS": workers,
            "ENABLE_CPU_PINNING": False,
        }
        self._input, self._outputs = bundle.info["input"]["name"], _outputs(bundle)
        try:
            model = core.read_model(bundle.model, b"")
            model.reshape({self._input: [1, *bundle.info["input"]["shape"][1:]]})
            self._compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            line = str(error).strip().splitlines()[-1].strip()
            raise SpiculaError(f"{bundle.folder} cannot be run: {line}; a newer openvino may help") from error
        self._own = threading.local()
        self.manner = Manner("openvino", precision)

    def run(self, inputs: Floats, evidence: bool, is_alone: bool) -> Answer:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        request = self._own.request
        wanted = self._outputs if evidence else self._outputs[:1]
        rows = []
        for at in range(len(inputs)):
            request.infer({self._input: inputs[at : at + 1]}, share_inputs=True)
            rows.append([np.array(request.get_tensor(name).data) for name in wanted])
        return _answer(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))
