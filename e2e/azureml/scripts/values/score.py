"""Returns what its input names: what JSON can hold, and what it cannot."""
import datetime
import decimal
import json

import numpy as np
import pandas as pd

VALUES = {
    "none": lambda: None,
    "list": lambda: [1, "a", None, True, 1.5],
    "tuple": lambda: (1, 2),
    "text": lambda: "a \u00e9 \U0001f600 \"quoted\"",
    "json": lambda: json.dumps({"a": 1}),
    "nan": lambda: [float("nan"), float("inf")],
    "keys": lambda: {1: "a", None: "b", True: "c"},
    "zero": lambda: 0,
    "empty": lambda: [],
    "array": lambda: np.array([1, 2]),
    "tolist": lambda: np.array([[1.5, 2]]).tolist(),
    "int64": lambda: {"a": np.int64(1)},
    "float64": lambda: np.float64(1.5),
    "frame": lambda: pd.DataFrame({"a": [1]}),
    "set": lambda: {1},
    "bytes": lambda: b"a",
    "date": lambda: datetime.datetime(2020, 1, 1),
    "decimal": lambda: decimal.Decimal("1.5"),
    "tuple_key": lambda: {(1, 2): 3},
    "generator": lambda: (i for i in range(3)),
    "circular": lambda: circular(),
}


def circular():
    value = []
    value.append(value)
    return value


def init():
    pass


def run(data):
    return VALUES[json.loads(data)["value"]]()
