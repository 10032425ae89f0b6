"""A model of Triton's Python backend that runs the model.onnx beside it. With numpy 1, as nvidia-pytriton brings it."""

from pathlib import Path
from typing import Any

import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    """One ONNX file, with onnxruntime's default threads."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the file."""
        file = Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests."""
        return [self._answer(pb.get_input_tensor_by_name(request, "image").as_numpy()) for request in requests]

    def _answer(self, images: Any) -> Any:
        (scores,) = self.session.run(["probabilities"], {"image": images})
        return pb.InferenceResponse([pb.Tensor("probabilities", scores)])
