"""A model of Triton's Python back end."""

import triton_python_backend_utils as triton
from onnxmodel import Model

TYPES = {"tensor(int64)": "TYPE_INT64"}  # all else in these models is float32


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        """Tell Triton the inputs and outputs, which the configuration leaves out."""
        model = Model()
        shape = [-1 if isinstance(d, str) else d for d in model.input.shape]
        config.set_max_batch_size(0)
        config.add_input({"name": model.input.name, "data_type": "TYPE_FP32", "dims": shape})
        for output in model.outputs:
            kind = TYPES.get(output.type, "TYPE_FP32")
            dims = [-1] if kind == "TYPE_INT64" else [-1, -1]
            config.add_output({"name": output.name, "data_type": kind, "dims": dims})
        return config

    def initialize(self, args):
        self.model = Model()

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        rows = triton.get_input_tensor_by_name(request, self.model.input.name).as_numpy()
        answers = self.model.run(rows)
        return triton.InferenceResponse([triton.Tensor(name, answer) for name, answer in answers.items()])
