"""Takes longer than anybody waits."""

import time

signature = {
    "inputs": [{"name": "x", "datatype": "INT64", "shape": [1]}],
    "outputs": [{"name": "y", "datatype": "INT64", "shape": [1]}],
}


def run(inputs, wanted):
    time.sleep(100)
    return [("y", inputs["x"])]
