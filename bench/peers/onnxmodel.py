"""The model that every peer serves: one ONNX file through ONNX Runtime, the same in all."""

import os

import numpy as np
import onnxruntime as ort


class Model:
    """A session on the file that BENCH_MODEL names.

    BENCH_THREADS is how many threads one run may use; without it ONNX Runtime
    takes as many as there are cores, as it does for anyone who sets nothing.
    """

    def __init__(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("BENCH_THREADS", "0"))
        self.session = ort.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0]
        self.outputs = self.session.get_outputs()
        self.names = [output.name for output in self.outputs]

    def run(self, rows):
        """Return the outputs by name, each an array."""
        rows = np.ascontiguousarray(rows, np.float32)
        answers = self.session.run(self.names, {self.input.name: rows})
        return {name: plain(answer) for name, answer in zip(self.names, answers)}


def plain(answer):
    """Return a list of probabilities by class, which scikit-learn's exports give, as an array."""
    if isinstance(answer, list):
        return np.array([list(row.values()) for row in answer], np.float32)
    return answer
