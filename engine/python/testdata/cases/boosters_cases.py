"""XGBoost and LightGBM: their own files, and an estimator of theirs by pickle."""

from __future__ import annotations

import os
from typing import Any, Dict, List

import lightgbm
import numpy as np
import xgboost

from . import Case
from .sklearn_cases import IRIS, X, Y, case

NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
ASKED = X[::15].astype(np.float32)
ASKED[1, 2] = np.nan  # a missing value


def with_xgboost(name: str, file: str, settings: Dict[str, Any], label: Any) -> Case:
    """A booster of a few small trees."""

    def train(folder: str) -> None:
        data = xgboost.DMatrix(X, label=label, feature_names=NAMES)
        settings_ = {"max_depth": 2, "seed": 0, **settings}
        xgboost.train(settings_, data, 4).save_model(os.path.join(folder, file))

    def reference(folder: str, values: Dict[str, Any]) -> Dict[str, Any]:
        booster = xgboost.Booster(model_file=os.path.join(folder, file))
        return {"predict": booster.predict(xgboost.DMatrix(values["input"], feature_names=NAMES))}

    return Case(name, "xgboost", file, {"input": ASKED}, train, reference)


def with_lightgbm(name: str, settings: Dict[str, Any], label: Any) -> Case:
    """A booster of a few small trees."""

    def train(folder: str) -> None:
        settings_ = {"num_leaves": 4, "verbose": -1, "seed": 0, "deterministic": True, **settings}
        data = lightgbm.Dataset(X, label=label, feature_name=NAMES)
        lightgbm.train(settings_, data, 4).save_model(os.path.join(folder, "model.txt"))

    def reference(folder: str, values: Dict[str, Any]) -> Dict[str, Any]:
        booster = lightgbm.Booster(model_file=os.path.join(folder, "model.txt"))
        return {"predict": booster.predict(values["input"])}

    return Case(
        name, "lightgbm", "model.txt", {"input": ASKED.astype(np.float64)}, train, reference
    )


def cases() -> List[Case]:
    """All cases."""
    versicolor = (Y == 1).astype(float)
    both = "predict predict_proba"
    estimator = xgboost.XGBClassifier(n_estimators=3, max_depth=2).fit(X, Y)
    leaves = lightgbm.LGBMClassifier(n_estimators=3, num_leaves=4, verbose=-1).fit(
        X, np.array(IRIS.target_names)[Y]
    )
    asked = {"input": X[::15]}
    return [
        with_xgboost(
            "xgboost-json", "model.json", {"objective": "multi:softprob", "num_class": 3}, Y
        ),
        with_xgboost("xgboost-ubj", "model.ubj", {"objective": "binary:logistic"}, versicolor),
        with_xgboost("xgboost-regressor", "model.json", {"objective": "reg:squarederror"}, X[:, 0]),
        with_lightgbm("lightgbm-classes", {"objective": "multiclass", "num_class": 3}, Y),
        with_lightgbm("lightgbm-regressor", {"objective": "regression"}, X[:, 0]),
        case("pickle-xgboost", estimator, both, asked, format="pickle"),
        case("pickle-lightgbm", leaves, both, asked, format="pickle"),
    ]
