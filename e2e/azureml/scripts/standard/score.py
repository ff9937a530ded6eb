"""Standard types, nested and optional, with defaults and headers."""
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema


def init():
    pass


@input_schema("name", StandardPythonParameterType("sample"))
@input_schema("numbers", StandardPythonParameterType([1.5]))
@input_schema("scale", StandardPythonParameterType(1), optional=True)
def run(name, numbers, scale=2, request_headers=None):
    if name == "fail":
        raise ValueError("as asked")
    return {"name": name, "sum": sum(numbers) * scale, "agent": request_headers.get("User-Agent")}
