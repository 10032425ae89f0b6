"""Running a bundle's graph with ONNX Runtime."""

from collections.abc import Sequence
from typing import Any

from spicula.errors import SpiculaError

#: On a CPU; `use_tf32` off keeps float32 what it says on a GPU.
CPU: tuple[tuple[str, dict[str, str]], ...] = (("CPUExecutionProvider", {}),)
CUDA: tuple[tuple[str, dict[str, str]], ...] = (("CUDAExecutionProvider", {"use_tf32": "0"}), *CPU)


def make_session(
    graph: bytes, where: str, threads: int | None = None, providers: Sequence[tuple[str, dict[str, str]]] = CPU
) -> Any:
    """Return an ONNX Runtime session.

    Args:
        graph: an ONNX file.
        where: it is from, for errors.
        threads: that one run uses; None: one a core.
        providers: what computes, the first choice first, each with its options.

    Raises:
        SpiculaError: the graph cannot be run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors; the warnings are about optimisations
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=list(providers))
    except Exception as error:  # onnxruntime's own exceptions share no other base
        line = str(error).splitlines()[0]
        raise SpiculaError(f"{where} cannot be run: {line}; a newer onnxruntime may help") from error
    # It would keep the file in memory, to try other providers when one fails.
    session.disable_fallback()
    session._model_bytes = None
    return session


def run_only(session: Any, outputs: Sequence[str], inputs: dict[str, Any]) -> list[Any]:
    """Run those nodes of a graph that some of its outputs need, and return these outputs, in their order."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    found: list[Any] = session.run(list(outputs), inputs, options)
    return found
