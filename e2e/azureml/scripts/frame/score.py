"""A data frame as the one argument, answered with text, as the older generated scripts did."""
import json

import pandas as pd
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.schema_decorators import input_schema, output_schema
import numpy as np

input_sample = pd.DataFrame({"x": pd.Series([1.5]), "flag": pd.Series([True])})


def init():
    pass


@input_schema("data", PandasParameterType(input_sample))
@output_schema(NumpyParameterType(np.array([0])))
def run(data):
    try:
        result = data["x"] * 2
        return json.dumps({"result": result.tolist(), "flags": data["flag"].tolist()})
    except Exception as e:
        return json.dumps({"error": str(e)})
