"""Only the output has a schema: the arguments come by name all the same."""
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import output_schema


def init():
    pass


@output_schema(StandardPythonParameterType({"sum": 1}))
def run(a, b=10):
    return {"sum": a + b}
