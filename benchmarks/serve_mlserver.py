"""A runtime of MLServer, which has none for ONNX: `parameters.uri` of the model's settings names the file."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor
from mlserver.utils import get_model_uri

OUTPUT = "probabilities"


class OnnxModel(MLModel):  # type: ignore[misc]
    """One ONNX file, with onnxruntime's default threads."""

    async def load(self) -> bool:
        """Open the file."""
        uri = await get_model_uri(self._settings)
        self.session = onnxruntime.InferenceSession(uri, providers=["CPUExecutionProvider"])
        (image,) = self.session.get_inputs()
        shape = [size if isinstance(size, int) else -1 for size in image.shape]
        self.inputs = [MetadataTensor(name=image.name, datatype="FP32", shape=shape)]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        feed = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        (found,) = self.session.run([OUTPUT], feed)
        outputs = [NumpyCodec.encode_output(OUTPUT, found)]
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=outputs)
