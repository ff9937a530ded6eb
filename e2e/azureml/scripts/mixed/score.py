"""A list of different types, which the oldest version of the description cannot express."""
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema


def init():
    pass


@input_schema("data", StandardPythonParameterType([{"a": 1}, "text", 1.5]))
def run(data):
    return len(data)
