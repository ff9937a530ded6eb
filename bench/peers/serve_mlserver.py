"""A custom runtime of MLServer, as its documentation writes one."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from onnxmodel import Model


class OnnxModel(MLModel):
    async def load(self) -> bool:
        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        answers = self.model.run(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(name, answer) for name, answer in answers.items()],
        )
