"""A model of a user's own, as MLflow keeps it: this file is copied into the model's folder."""

from __future__ import annotations

from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.models import set_model


class Parts(mlflow.pyfunc.PythonModel):
    """Columns of several types, and a table as the answer."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        total = model_input["x"] + model_input["n"]
        return pd.DataFrame({"total": total, "label": model_input["s"] + "!"})


set_model(Parts())
