"""An entry script of azureml-inference-server-http."""

import json

import numpy as np
from onnxmodel import Model


def init():
    global model
    model = Model()


def run(raw_data):
    answers = model.run(np.array(json.loads(raw_data)["data"], np.float32))
    return {name: answer.tolist() for name, answer in answers.items()}
