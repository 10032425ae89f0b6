"""A model of Triton's Python backend that runs the model.onnx beside it, where spicula's packages are installed."""

from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb

from spicula.serving.triton.backend import handed_over


class TritonPythonModel:
    def initialize(self, args):
        file = Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def execute(self, requests):
        """Run requests that were put together at once, as the backend does that it stands for."""
        parts = [np.from_dlpack(pb.get_input_tensor_by_name(request, self.input)) for request in requests]
        found = self.session.run(None, {self.input: np.concatenate(parts)})
        ends = np.cumsum([len(part) for part in parts])[:-1]
        rows = [np.split(array, ends) for array in found]
        return [self.answer(request, [array[at] for array in rows]) for at, request in enumerate(requests)]

    def answer(self, request, arrays):
        names = [one.name for one in self.session.get_outputs()]
        wanted = [(n, a) for n, a in zip(names, arrays, strict=True) if n in request.requested_output_names()]
        return pb.InferenceResponse([pb.Tensor.from_dlpack(name, handed_over(array)) for name, array in wanted])
