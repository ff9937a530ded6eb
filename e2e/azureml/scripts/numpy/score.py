"""A numpy schema, as the samples of scikit-learn have it."""
import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema, output_schema

sample = np.array([[1, 2, 3, 4], [10, 9, 8, 7]])


def init():
    global weights
    weights = np.arange(4)


@input_schema("data", NumpyParameterType(sample))
@output_schema(NumpyParameterType(np.array([1.5, 2.5])))
def run(data):
    try:
        assert isinstance(data, np.ndarray)
        return (data @ weights).tolist()
    except Exception as e:
        return str(e)
