"""A runtime of MLServer, which has none for ONNX: `parameters.uri` of the model's settings names the file."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor
from mlserver.utils import get_model_uri


def described(tensor):
    shape = [size if isinstance(size, int) else -1 for size in tensor.shape]
    return MetadataTensor(name=tensor.name, datatype={"tensor(float)": "FP32"}[tensor.type], shape=shape)


class OnnxModel(MLModel):
    async def load(self) -> bool:
        uri = await get_model_uri(self._settings)
        self.session = onnxruntime.InferenceSession(uri, providers=["CPUExecutionProvider"])
        self.inputs = [described(one) for one in self.session.get_inputs()]
        self.outputs = [described(one) for one in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feed = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        names = [one.name for one in self.session.get_outputs()]
        outputs = [NumpyCodec.encode_output(*pair) for pair in zip(names, self.session.run(names, feed), strict=True)]
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=outputs)
