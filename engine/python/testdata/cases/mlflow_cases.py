"""MLflow folders as MLflow writes them."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Callable, Dict, List

import joblib
import mlflow
import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types.schema import Schema, TensorSpec
from sklearn.linear_model import LogisticRegression

from . import Case
from .sklearn_cases import X, Y, table_case

NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
TABLE = pd.DataFrame(X, columns=NAMES)
PINS = {"extra_pip_requirements": None, "serialization_format": "cloudpickle"}


def with_sklearn(
    name: str, signature: Any, inputs: Dict[str, Any], data: Callable[[Dict[str, Any]], Any]
) -> Case:
    """A classifier in a folder."""

    def train(folder: str) -> None:
        model = LogisticRegression(max_iter=300).fit(TABLE if "columns" in name else X, Y)
        mlflow.sklearn.save_model(model, folder, signature=signature, **PINS)

    def reference(folder: str, values: Dict[str, Any]) -> Dict[str, Any]:
        return {"predictions": np.asarray(mlflow.pyfunc.load_model(folder).predict(data(values)))}

    return Case(name, "mlflow", "", inputs, train, reference)


def custom() -> Case:
    """Columns of several types, and a table as the answer."""
    table = pd.DataFrame({"x": [0.5, 1.5], "n": [1, 2], "s": ["a", "b"]})
    inputs = {
        "x": table["x"].to_numpy(),
        "n": table["n"].to_numpy(),
        "s": table["s"].to_numpy(dtype=object),
    }

    def train(folder: str) -> None:
        answer = pd.DataFrame({"total": [0.5], "label": ["a"]})
        code = os.path.join(os.path.dirname(os.path.abspath(__file__)), "parts.py")
        pins = ["mlflow==" + mlflow.__version__, "pandas==" + pd.__version__]
        mlflow.pyfunc.save_model(
            folder,
            python_model=code,
            signature=infer_signature(table, answer),
            pip_requirements=pins,
        )
        with open(os.path.join(folder, "MLmodel"), "r+") as file:  # MLflow notes where the code was
            text = file.read().replace(code, os.path.basename(code))
            file.seek(0)
            file.truncate()
            file.write(text)

    def reference(folder: str, values: Dict[str, Any]) -> Dict[str, Any]:
        given = mlflow.pyfunc.load_model(folder).predict(pd.DataFrame(values))
        return {c: given[c].to_numpy() for c in given.columns}

    return Case("mlflow-custom", "mlflow", "", inputs, train, reference)


def pipeline() -> Case:
    """A table without a signature: only the pipeline in it knows its columns."""
    origin = table_case()

    def train(folder: str) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            origin.train(temporary)
            model = joblib.load(os.path.join(temporary, origin.file))
        mlflow.sklearn.save_model(model, folder, **PINS)

    def reference(folder: str, values: Dict[str, Any]) -> Dict[str, Any]:
        return {"predictions": mlflow.pyfunc.load_model(folder).predict(pd.DataFrame(values))}

    return Case("mlflow-pipeline", "mlflow", "", origin.inputs, train, reference)


def cases() -> List[Case]:
    """All cases."""
    asked = X[::15] + 0.01
    tensors = ModelSignature(
        Schema([TensorSpec(np.dtype("float64"), (-1, 4))]),
        Schema([TensorSpec(np.dtype("int64"), (-1,))]),
    )
    columns = {n: asked[:, i] for i, n in enumerate(NAMES)}
    return [
        with_sklearn(
            "mlflow-columns", infer_signature(TABLE, Y), columns, lambda v: pd.DataFrame(v)[NAMES]
        ),
        with_sklearn("mlflow-tensors", tensors, {"input": asked}, lambda v: v["input"]),
        with_sklearn("mlflow-unsigned", None, {"input": asked}, lambda v: v["input"]),
        custom(),
        pipeline(),
    ]
