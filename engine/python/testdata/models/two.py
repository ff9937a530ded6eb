"""Two inputs, two outputs: each given back, one of them doubled."""


def value(name, datatype, shape):
    return {"name": name, "datatype": datatype, "shape": shape}


signature = {
    "inputs": [value("x", "FP32", [-1, 2]), value("text", "BYTES", [-1])],
    "outputs": [value("doubled", "FP32", [-1, 2]), value("text", "BYTES", [-1])],
}


def run(inputs, wanted):
    assert inputs["x"].flags.writeable and inputs["x"].dtype == "float32"
    outputs = [("text", list(inputs["text"])), ("doubled", inputs["x"] * 2)]
    return [o for o in outputs if wanted is None or o[0] in wanted]
