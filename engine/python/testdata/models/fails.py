"""Fails at every run, by what its input says."""

signature = {
    "inputs": [{"name": "x", "datatype": "INT64", "shape": [1]}],
    "outputs": [{"name": "y", "datatype": "INT64", "shape": [1]}],
}


def run(inputs, wanted):
    if inputs["x"][0] == 1:
        raise InvalidInput("input 'x': 1 is what it cannot be", "send 0")  # noqa: F821
    if inputs["x"][0] == 2:
        return [("z", inputs["x"])]
    if inputs["x"][0] == 3:
        return [("y", {1, 2})]
    if inputs["x"][0] == 4:
        return [("y", ["text"])]
    raise ValueError("the model cannot")
