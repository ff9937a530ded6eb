"""A BentoML service. BENCH_WORKERS is the number of its workers."""

import os

import bentoml
import numpy as np
from onnxmodel import Model


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]))
class Score:
    def __init__(self):
        self.model = Model()

    @bentoml.api(route="/score")
    def score(self, data: list) -> dict:
        answers = self.model.run(np.array(data, np.float32))
        return {name: answer.tolist() for name, answer in answers.items()}
