"""An entry script with 200 MiB of a model, of which its workers may share what they can."""

import json


def init():
    global weights
    weights = b"\x01" * (200 << 20)


def run(data):
    row = json.loads(data)["data"][0]
    return {"answer": [weights[int(value)] for value in row]}
