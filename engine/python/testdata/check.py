"""Compares what the worker makes of the models of a group with what their framework makes of them:

    python check.py GROUP FOLDER

Every bit must be equal to what the framework answers here and now, and the numbers to those in
expected.json but for what another processor's arithmetic may change.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any, Dict, List

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "worker"))

import cases  # noqa: E402
import numpy as np  # noqa: E402
from zarpa_worker import formats  # noqa: E402
from zarpa_worker.errors import LoadError  # noqa: E402


def read(record: Dict[str, Any]) -> Any:
    """An array of expected.json."""
    return np.array(record["data"], dtype=record["dtype"]).reshape(record["shape"])


def equal(a: Any, b: Any) -> bool:
    """Whether every bit is equal."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind in "OU" or b.dtype.kind in "OU":
        return a.shape == b.shape and a.astype(object).tolist() == b.astype(object).tolist()
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def near(a: Any, b: Any) -> bool:
    """Whether numbers are equal up to rounding."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind not in "f":
        return equal(a, b)
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-6)


def problems(case: cases.Case, folder: str) -> List[str]:
    """What is wrong with a case."""
    with open(os.path.join(folder, case.name, "expected.json")) as file:
        expected = json.load(file)
    directory = os.path.join(folder, case.name, "model")
    inputs = {n: read(v) for n, v in expected["inputs"].items()}
    model = formats.load(case.format, directory, case.file)
    found = list(model.notes)
    outputs = dict(model.run(inputs, None))
    reference = case.reference(directory, inputs)
    names = [o["name"] for o in model.signature["outputs"]]
    if sorted(names) != sorted(reference) or sorted(outputs) != sorted(reference):
        return found + [
            "outputs %s, said to be %s, want %s" % (sorted(outputs), names, sorted(reference))
        ]
    for spec in model.signature["outputs"]:
        name, value = spec["name"], outputs[spec["name"]]
        if not equal(value, reference[name]):
            found.append("%s: %r, the framework says %r" % (name, value, reference[name]))
        if not near(value, read(expected["outputs"][name])):
            found.append(
                "%s: %r, expected.json says %r" % (name, value, read(expected["outputs"][name]))
            )
        if spec["shape"] is not None and (
            len(spec["shape"]) != value.ndim
            or any(s not in (-1, n) for s, n in zip(spec["shape"], value.shape))
        ):
            found.append("%s: shape %s, said to be %s" % (name, value.shape, spec["shape"]))
        (alone,) = model.run(inputs, [name])
        if alone[0] != name or not equal(alone[1], value):
            found.append("%s: asked for alone, it is %r" % (name, alone))
    return found


# Files that must not load here, and what must be said of each.
REFUSED = {"sklearn": {("sklearn", "sklearn-1.2.2", "model.joblib"): "scikit-learn==1.2.2"}}


def accepted(group: str) -> int:
    """How many files that cannot be loaded were, or got an error without what to do."""
    count = 0
    for (format_, name, file), word in REFUSED.get(group, {}).items():
        try:
            formats.load(format_, os.path.join(HERE, "refused", name), file)
            found = "it was loaded"
        except LoadError as failure:
            said = failure.message + " (" + failure.hint + ")"
            found = "" if failure.phase == "model" and word in said else said
        count += bool(found)
        print("FAIL %s: %s" % (name, found) if found else "ok   %s is refused" % name)
    return count


def main(group: str, folder: str) -> int:
    failed = accepted(group)
    for case in cases.of(group):
        found = problems(case, folder)
        failed += bool(found)
        print(
            "%s %s" % ("FAIL" if found else "ok  ", case.name),
            *found,
            sep="\n     " if found else " ",
        )
    print("%s: %d failed" % (group, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    sys.exit(main(*sys.argv[1:]))
