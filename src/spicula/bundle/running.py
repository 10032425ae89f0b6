"""Running a bundle's graph with ONNX Runtime."""

from collections.abc import Sequence
from typing import Any

from spicula.errors import SpiculaError

#: On a CPU, or on a GPU: float32 without the shortened TF32, and convolutions as cuDNN recommends them, since to time
#: all of them (the default) takes long for every new size of a batch, and may choose others at the next start. Options:
#: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
CPU: tuple[tuple[str, dict[str, str]], ...] = (("CPUExecutionProvider", {}),)
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
CUDA: tuple[tuple[str, dict[str, str]], ...] = (("CUDAExecutionProvider", CUDA_OPTIONS), *CPU)


def make_session(
    graph: bytes,
    where: str,
    threads: int | None = None,
    providers: Sequence[tuple[str, dict[str, str]]] = CPU,
    spins: bool = True,
) -> Any:
    """Return an ONNX Runtime session.

    Args:
        graph: an ONNX file.
        where: it is from, for errors.
        threads: that one run uses; None: one a core.
        providers: what computes, the first choice first, each with its options.
        spins: threads that wait for their part of a run keep their cores busy, which others may want.

    Raises:
        SpiculaError: the graph cannot be run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    if not spins:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors; the warnings are about optimisations
    try:
        # no second try, in which it would leave out a provider that fails, and say so on stdout alone
        session = onnxruntime.InferenceSession(graph, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # onnxruntime's own exceptions share no other base
        line = str(error).splitlines()[0]
        raise SpiculaError(f"{where} cannot be run: {line}; a newer onnxruntime may help") from error
    session._model_bytes = None  # which it keeps for such a try
    return session


def run_only(session: Any, outputs: Sequence[str], inputs: dict[str, Any]) -> list[Any]:
    """Run those nodes of a graph that some of its outputs need, and return these outputs, in their order."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    found: list[Any] = session.run(list(outputs), inputs, options)
    return found
