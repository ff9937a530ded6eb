"""Boosted trees in the files of XGBoost and LightGBM themselves, run by their native boosters."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List

import numpy as np

from ..errors import LoadError
from .model import Model, Outputs, datatype, differs, rows, spec, version_note

INPUT, OUTPUT = "input", "predict"


class Booster(Model):
    """Trees over one matrix; NaN is a missing value."""

    def __init__(self, version: str, features: int, names: List[str], kind: str) -> None:
        takes = spec(INPUT, kind, [-1, features])
        if names:
            takes["columns"] = names
        super().__init__(version, [takes], [])
        self.predict_one(features)

    def predict_one(self, features: int) -> None:
        """Learn what a prediction is from one row without values."""
        given = self.predict(np.full((1, features), np.nan, dtype=self.dtype))
        self.signature["outputs"] = [spec(OUTPUT, datatype(given.dtype), rows(given))]

    dtype: Any = np.float64

    def predict(self, matrix: Any) -> Any:
        """The trees' answer for each row."""
        raise TypeError("a booster predicts")  # abstract

    def compute(self, values: Dict[str, Any], chosen: List[str]) -> Outputs:
        given = self.predict(values[INPUT])
        return [(name, given) for name in chosen]


class XGBoost(Booster):
    """XGBoost's Booster; what objective and base score make of the trees is in predict."""

    framework = "xgboost"
    dtype = np.float32

    def __init__(self, path: str) -> None:
        import xgboost

        self.xgboost = xgboost
        self.booster = xgboost.Booster()
        if path.endswith((".json", ".ubj")):
            self.booster.load_model(path)
        else:  # by the name XGBoost would take it for UBJSON; by its bytes it looks
            with open(path, "rb") as file:
                self._load(bytearray(file.read()))
        self.names: List[str] = list(self.booster.feature_names or [])
        self.types: List[str] = list(self.booster.feature_types or [])
        super().__init__(xgboost.__version__, self.booster.num_features(), self.names, "FP32")
        made_by = version_in(path)
        if differs(made_by, xgboost.__version__):
            self.notes.append(version_note("xgboost", made_by, xgboost.__version__))

    def _load(self, content: bytearray) -> None:
        try:
            self.booster.load_model(content)
        except self.xgboost.core.XGBoostError as failure:
            if content[:1] == b"{":
                raise
            message = (
                "the file has XGBoost's old binary form, which XGBoost %s does not read"
                % self.xgboost.__version__
            )
            raise LoadError(
                "model",
                message,
                "pin xgboost-cpu<3.1, or save it again as JSON there",
                str(failure),
            ) from failure

    def predict(self, matrix: Any) -> Any:
        data = self.xgboost.DMatrix(
            matrix,
            feature_names=self.names or None,
            feature_types=self.types or None,
            enable_categorical="c" in self.types,
        )
        return self.booster.predict(data)


def version_in(path: str) -> str:
    """The version that wrote a file; both forms end with it, as the last key."""
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(file.tell() - 256, 0))
        end = file.read()
    text = re.search(rb'"version"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]', end)
    if text:
        return ".".join(n.decode() for n in text.groups())
    binary = re.search(rb"version\[#L\x00{7}\x03i(.)i(.)i(.)", end, re.DOTALL)
    return ".".join(str(n[0]) for n in binary.groups()) if binary else ""


class LightGBM(Booster):
    """LightGBM's Booster."""

    framework = "lightgbm"

    def __init__(self, path: str) -> None:
        import lightgbm

        self.booster = lightgbm.Booster(model_file=path)
        features = self.booster.num_feature()
        names = list(self.booster.feature_name())
        if names == [
            "Column_%d" % i for i in range(features)
        ]:  # given by LightGBM, not by its user
            names = []
        super().__init__(lightgbm.__version__, features, names, "FP64")

    def predict(self, matrix: Any) -> Any:
        return self.booster.predict(matrix)


def load_xgboost(path: str) -> Booster:
    """Load JSON, UBJSON or the old binary form."""
    return XGBoost(path)


def load_lightgbm(path: str) -> Booster:
    """Load LightGBM's text."""
    return LightGBM(path)
