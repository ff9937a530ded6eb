"""The shape of the first tutorials: a JSON text in, a list out."""
import json
import os


def init():
    global weights
    weights = [0.5, 0.25, 0.125]
    assert os.getcwd() == os.path.dirname(os.path.abspath(__file__))


def run(raw_data):
    data = json.loads(raw_data)["data"]
    return [sum(w * x for w, x in zip(weights, row)) for row in data]
