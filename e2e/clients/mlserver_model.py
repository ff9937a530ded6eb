"""Models for MLServer: outputs are the inputs, or their sum and difference."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse, ResponseOutput


class Mirror(MLModel):
    async def predict(self, payload):
        outputs = []
        for i, o in zip(sorted(payload.inputs, key=lambda i: i.name), self.outputs):
            if not payload.outputs or o.name in [w.name for w in payload.outputs]:
                outputs.append(ResponseOutput(name=o.name, shape=i.shape, datatype=i.datatype, data=i.data))
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=outputs)


class Add(MLModel):
    async def predict(self, payload):
        a, b = (NumpyCodec.decode_input(i) for i in sorted(payload.inputs, key=lambda i: i.name))
        outputs = [NumpyCodec.encode_output("sum", a + b), NumpyCodec.encode_output("difference", a - b)]
        wanted = [w.name for w in payload.outputs or []]
        outputs = [o for o in outputs if not wanted or o.name in wanted]
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=outputs)
