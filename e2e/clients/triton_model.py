"""A model for Triton's Python back end: outputs are the inputs, or their sum and difference."""

import json

import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.adds = args["model_name"] == "add"
        config = json.loads(args["model_config"])
        self.outputs = [o["name"] for o in config["output"]]

    def execute(self, requests):
        return [pb.InferenceResponse(self.answer(r)) for r in requests]

    def answer(self, request):
        values = [t.as_numpy() for t in request.inputs()]
        if self.adds:
            values = [values[0] + values[1], values[0] - values[1]]
        wanted = request.requested_output_names()
        return [pb.Tensor(n, v) for n, v in zip(self.outputs, values) if n in wanted]
