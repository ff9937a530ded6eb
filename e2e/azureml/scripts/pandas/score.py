"""The shape that automated machine learning generates: a data frame and a parameter."""
import json

import pandas as pd
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

data_sample = PandasParameterType(pd.DataFrame({"age": pd.Series([0], dtype="int64"), "job": pd.Series(["a"], dtype="object")}))
method_sample = StandardPythonParameterType("predict")
sample_global_params = StandardPythonParameterType({"method": method_sample})


def init():
    global model
    model = {"services": 1}


@input_schema("GlobalParameters", sample_global_params, convert_to_provided_type=False)
@input_schema("Inputs", StandardPythonParameterType({"data": data_sample}))
@output_schema(StandardPythonParameterType({"Results": StandardPythonParameterType([0])}))
def run(Inputs, GlobalParameters={"method": "predict"}):
    frame = Inputs["data"]
    result = [model.get(job, 0) + age for age, job in zip(frame["age"].tolist(), frame["job"])]
    if GlobalParameters.get("method") == "predict_proba":
        result = [[r, 1 - r] for r in result]
    return {"Results": result}
