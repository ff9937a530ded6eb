"""scikit-learn estimators, and other objects with predict, saved by pickle or joblib.

The outputs are the methods of the object: predict and predict_proba, or what there is instead of
them. What they give is found by calling each once, on one row, when the model is loaded.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import re
import traceback
import warnings
import zlib
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ..errors import LoadError
from . import broken
from . import columns as shapes
from .model import Model, Outputs, Spec, array, datatype, differs, rows, spec, version_note

INPUT = "input"

# How much of a file is searched for a version, in bytes.
SEARCHED = 16 << 20


class Estimator(Model):
    """An object whose methods are its outputs."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.framework, version = framework_of(model)
        self.layout = shapes.layout(model)
        self.pandas: Any = None
        if self.layout.named or self.layout.kind == "table":
            self.pandas = _pandas(required=self.layout.kind == "table")
        super().__init__(version, self._inputs(), [])
        self.outputs: Dict[
            str, Tuple[str, Optional[int]]
        ] = {}  # the method, and which of its results
        self.signature["methods"] = self._probe(methods_of(model))

    def _inputs(self) -> List[Spec]:
        known, names, found, _ = self.layout
        if known == "texts":
            return [spec(INPUT, "BYTES", [-1])]
        if known == "table":
            return [
                spec(n, "BYTES" if c and c.text else "FP64", [-1]) for n, c in zip(names, found)
            ]
        text = bool(found) and all(c is not None and c.text for c in found)
        one = spec(INPUT, "BYTES" if text else "FP64", [-1, len(found) or -1])
        if names:
            one["columns"] = names
        return [one]

    def _probe(self, methods: List[str]) -> List[str]:
        """Call each method once to learn what it gives; a method that fails is left out, with a
        note.
        """
        sample = self._sample()
        answering = []
        for method in methods:
            results: List[Any] = [None]
            if sample is not None:
                try:
                    results = self._call(method, sample)
                except Exception as failure:
                    self.notes.append(
                        "%s was left out: on one row it fails with %s: %s"
                        % (method, type(failure).__name__, failure)
                    )
                    continue
            answering.append(method)
            self._describe(method, results)
        if not answering:
            raise LoadError(
                "model",
                "; ".join(self.notes),
                "load the model by hand in this environment and call it on one row",
            )
        return answering

    def _describe(self, method: str, results: List[Any]) -> None:
        for i, result in enumerate(results):
            name, which = (method, None) if len(results) == 1 else ("%s_%d" % (method, i), i)
            self.outputs[name] = (method, which)
            if result is None:  # the number of features is unknown, so nothing could be tried
                one = spec(name, _guess(self.model, method), None)
            else:
                one = spec(name, datatype(result.dtype), rows(result))
            self.signature["outputs"].append(one)

    def _sample(self) -> Optional[Any]:
        """One row that every encoder knows; None where the number of columns is unknown."""
        found = self.layout.columns
        if not found:
            return None
        row = [c.value if c is not None else 0.0 for c in found]
        if self.layout.kind == "texts":
            return ["a text"]
        if self.layout.kind == "table":
            return self._table(
                {
                    n: np.array([v], dtype=object if isinstance(v, str) else float)
                    for n, v in zip(self.layout.names, row)
                }
            )
        return self._matrix(
            np.array([row], dtype=object if any(isinstance(v, str) for v in row) else float)
        )

    def _matrix(self, matrix: Any) -> Any:
        if self.pandas is None:
            return matrix
        return self.pandas.DataFrame(matrix, columns=self.layout.names)

    def _table(self, values: Dict[str, Any]) -> Any:
        table = self.pandas.DataFrame(values)
        if self.layout.named:
            return table
        return table.to_numpy(dtype=object)

    def _call(self, method: str, data: Any) -> List[Any]:
        result = getattr(self.model, method)(data)
        return (
            [array(r) for r in result]
            if isinstance(result, list) and result and hasattr(result[0], "shape")
            else [array(result)]
        )

    def compute(self, values: Dict[str, Any], chosen: List[str]) -> Outputs:
        if self.layout.kind == "table":
            data = self._table(values)
        elif self.layout.kind == "texts":
            data = values[INPUT].tolist()
        else:
            data = self._matrix(values[INPUT])
        results: Dict[str, List[Any]] = {}
        given = []
        for name in chosen:
            method, which = self.outputs[name]
            if method not in results:
                results[method] = self._call(method, data)
            given.append((name, results[method][which or 0]))
        return given


def methods_of(model: Any) -> List[str]:
    """The methods that become outputs: those that classify or regress, or else those that tell
    distances or transform."""
    found = [m for m in ("predict", "predict_proba") if callable(getattr(model, m, None))]
    if "predict_proba" not in found and callable(getattr(model, "decision_function", None)):
        found.append("decision_function")
    if not found and callable(getattr(model, "transform", None)):
        found.append("transform")
    if not found:
        kind = "%s.%s" % (type(model).__module__, type(model).__qualname__)
        raise LoadError(
            "contract",
            "the object in the file, a %s, has none of predict, predict_proba, "
            "decision_function and transform" % kind,
            "save a fitted model, or use a scoring script that loads the file",
        )
    return found


def _guess(model: Any, method: str) -> str:
    if method == "predict" and hasattr(model, "classes_"):
        return datatype(np.asarray(model.classes_).dtype)
    return "FP64"


def framework_of(model: Any) -> Tuple[str, str]:
    """The package that an object's class is from, with its version here."""
    module = type(model).__module__.partition(".")[0]
    try:
        version = str(getattr(__import__(module), "__version__", ""))
    except ImportError:
        version = ""
    return {"sklearn": "scikit-learn", "imblearn": "imbalanced-learn"}.get(module, module), version


def _pandas(required: bool) -> Any:
    try:
        import pandas
    except ImportError:
        if required:
            raise
        return None
    return pandas


def unpickle(path: str) -> Tuple[Any, List[str]]:
    """The object in a pickle or joblib file, and the versions of scikit-learn that it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            import joblib
        except ImportError:
            with open(path, "rb") as file:
                model = pickle.load(file)
        else:
            model = joblib.load(path)
    versions = {str(getattr(w.message, "original_sklearn_version", "")) for w in caught}
    return model, sorted(versions - {""})


def noted_version(path: str) -> str:
    """The version of scikit-learn that an estimator in a file notes of itself, read without loading
    it; empty where there is none in its first bytes."""
    openers: List[Any] = [open, gzip.open, bz2.open, lzma.open]
    for opener in openers:
        try:
            with opener(path, "rb") as file:
                start = file.read(SEARCHED)
        except (OSError, EOFError, lzma.LZMAError):
            continue  # not of this compression
        if start[:1] == b"\x78":  # zlib, which has no files of its own
            start = zlib.decompressobj().decompress(start, SEARCHED)
        found = re.search(rb"_sklearn_version.{1,12}?(\d+\.\d+[.\w]*)", start, re.DOTALL)
        if found:
            return found.group(1).decode()
    return ""


def of_another_version(path: str, failure: Exception) -> LoadError:
    """The error for a file that cannot be loaded: most often another version made it."""
    import sklearn

    made_by = noted_version(path)
    if not differs(made_by, sklearn.__version__):
        return broken(failure)
    message = "the model was made by scikit-learn %s, and %s cannot load it: %s: %s" % (
        made_by,
        sklearn.__version__,
        type(failure).__name__,
        str(failure).partition("\n")[0],
    )
    hint = "pin scikit-learn==%s in requirements.txt, or train the model again" % made_by
    return LoadError("model", message, hint, traceback.format_exc())


def load(path: str) -> Estimator:
    """Load a pickle. It runs code of whoever made it."""
    try:
        model, versions = unpickle(path)
    except ImportError:
        raise
    except Exception as failure:
        raise of_another_version(path, failure) from failure
    methods_of(model)  # before anything is asked of an object that is no model
    loaded = Estimator(model)
    for made_by in versions:
        import sklearn

        loaded.notes.append(version_note("scikit-learn", made_by, sklearn.__version__))
    return loaded
