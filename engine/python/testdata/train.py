"""Trains the models of a group and writes them with what was asked and answered:

    python train.py GROUP FOLDER

FOLDER/NAME/model holds the files, FOLDER/NAME/expected.json the rest. The packages are those of
requirements-*.txt; other versions give other files.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any, Dict

import cases
import numpy as np


def written(value: Any) -> Dict[str, Any]:
    """An array as JSON: Python writes each number so that it is read back exactly."""
    array = np.asarray(value)
    texts = array.dtype.kind in "OUS"
    return {
        "dtype": "object" if texts else array.dtype.name,
        "shape": list(array.shape),
        "data": array.ravel().tolist(),
    }


def main(group: str, folder: str) -> None:
    for case in cases.of(group):
        place = os.path.join(folder, case.name)
        shutil.rmtree(place, ignore_errors=True)
        model = os.path.join(place, "model")
        os.makedirs(place)
        if case.format != "mlflow":  # MLflow makes the folder itself
            os.makedirs(model)
        case.train(model)
        answers = case.reference(model, case.inputs)
        record = {
            "group": group,
            "format": case.format,
            "file": case.file,
            "inputs": {n: written(v) for n, v in case.inputs.items()},
            "outputs": {n: written(v) for n, v in answers.items()},
        }
        with open(os.path.join(place, "expected.json"), "w") as file:
            json.dump(record, file, indent=1)
            file.write("\n")
        print(case.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
