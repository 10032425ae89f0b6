"""A model of Triton's Python backend that runs the model.onnx beside it. With numpy 1."""

from pathlib import Path

import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        file = Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.input, self.output = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name

    def execute(self, requests):
        return [self.answer(pb.get_input_tensor_by_name(request, self.input).as_numpy()) for request in requests]

    def answer(self, images):
        (scores,) = self.session.run([self.output], {self.input: images})
        return pb.InferenceResponse([pb.Tensor(self.output, scores)])
