from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema

seen = []


def init():
    seen.append("real")


@input_schema("data", StandardPythonParameterType([1]))
def run(data):
    return {"data": data, "seen": seen}
