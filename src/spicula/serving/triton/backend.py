"""What runs in Triton's Python backend: the bytes of an image file become what a bundle's network takes.

A decoding process of the service does it, with its limits of time and memory: a file that kills its decoder costs its
own request, and no stub of Triton's. Tensors cross as DLPack, since Triton's stubs before 24.11 garble NumPy arrays of
version 2.
"""

import asyncio
import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spicula import bundle as bundles
from spicula.errors import RejectedImageError
from spicula.serving.decoding import Decoders
from spicula.serving.limits import Limits
from spicula.serving.problems import Problem, traceback_of
from spicula.serving.spool import Spool
from spicula.serving.triton.config import FILE


class TritonPythonModel:
    """One instance of the model: it prepares one image at a time. Triton calls its methods."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read which bundle images are prepared for, and start the process that decodes.

        Args:
            args: of Triton: `model_repository` is the model's folder, `model_version` its folder in there.

        Raises:
            SpiculaError: the description is damaged, this version of spicula prepares images otherwise, or the process
                cannot start. Triton logs it, and does not serve the model.
        """
        self._bundle = bundles.load_description(Path(args["model_repository"], args["model_version"]))
        self._most = Limits()["image-bytes"]
        self._loop = asyncio.new_event_loop()
        self._spool = Spool()
        self._decoders = Decoders([self._bundle], queue=1, count=1)
        self._loop.run_until_complete(self._decoders.start())

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests, each with a tensor or with an error of its own."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """End the process that decodes."""
        self._loop.run_until_complete(self._decoders.close())
        self._loop.close()
        self._spool.close()

    def _answer(self, request: Any) -> Any:
        import triton_python_backend_utils as pb

        try:
            data: npt.NDArray[Any] = np.from_dlpack(pb.get_input_tensor_by_name(request, FILE))
            prepared = self._prepare(data)
        except RejectedImageError as error:
            return pb.InferenceResponse(error=pb.TritonError(f"refused: {error}", pb.TritonError.INVALID_ARG))
        except Problem as problem:
            return pb.InferenceResponse(error=pb.TritonError(problem.detail, pb.TritonError.UNAVAILABLE))
        except Exception as error:  # its own words may quote the file, which nobody is to read
            pb.Logger.log_error(f"preparing failed: {traceback_of(error)}")
            return pb.InferenceResponse(
                error=pb.TritonError("preparing failed; see Triton's log", pb.TritonError.INTERNAL)
            )
        name = self._bundle.info["input"]["name"]
        return pb.InferenceResponse([pb.Tensor.from_dlpack(name, handed_over(prepared))])

    def _prepare(self, data: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return what the network takes, (1, ...).

        Args:
            data: (bytes,), uint8.

        Raises:
            RejectedImageError: the file gets no score, and why.
            Problem: the decoding process cannot be started again.
        """
        if data.nbytes > self._most:
            raise RejectedImageError(f"the file has more than {self._most} bytes")
        path = self._spool.path()
        try:
            with path.open("xb") as file:
                file.write(np.ascontiguousarray(data).data)
            return self._loop.run_until_complete(self._inputs(path))
        finally:
            path.unlink(missing_ok=True)

    async def _inputs(self, path: Path) -> npt.NDArray[np.float32]:
        prepared = await self._decoders.prepare(path, self._bundle)
        return await prepared.inputs(self._bundle)


def handed_over(array: npt.NDArray[np.float32]) -> Any:
    """Return an array as a DLPack capsule for Triton, which frees it.

    Once Triton has what is inside, it gives the capsule another name than DLPack's "used_dltensor", for which NumPy's
    destructor of capsules looks: it would complain to the log at every request. It has nothing left to do.

    Args:
        array: of any shape; a copy is handed over where Triton could not have its memory.
    """
    capsule = np.require(array, np.float32, ["C", "W"]).__dlpack__()
    ctypes.pythonapi.PyCapsule_SetDestructor(ctypes.py_object(capsule), None)
    return capsule
