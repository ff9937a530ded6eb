"""MLflow folders, run through MLflow's own python_function flavour."""

from __future__ import annotations

import base64
import json
import os
from typing import Any, Dict, List, Optional

import numpy as np

from . import columns as shapes
from .model import (
    DATATYPES,
    Model,
    Outputs,
    Spec,
    array,
    datatype,
    differs,
    rows,
    spec,
    version_note,
)

INPUT, OUTPUT = "input", "predictions"

# MLflow's names of column types, for those that are tensors of their own. Others travel as texts.
COLUMNS = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
}


class PyFunc(Model):
    """A model with a python_function flavour: with a signature of columns one input for each of
    them, with one of tensors those, and without one what scikit-learn says, or a matrix."""

    framework = "mlflow"

    def __init__(self, directory: str) -> None:
        import mlflow
        import mlflow.pyfunc

        self.model = mlflow.pyfunc.load_model(directory)
        self.kinds: Dict[
            str, str
        ] = {}  # the MLflow type of each column, or "" for those of tensors
        self.table = False
        self.samples: Dict[
            str, Any
        ] = {}  # values of inputs that an encoder in the model is sure to know
        inputs = self._inputs(self.model.metadata.get_input_schema())
        super().__init__(mlflow.__version__, inputs, [])
        self.signature["outputs"] = self._outputs(self.model.metadata.get_output_schema())
        made_by = str(getattr(self.model.metadata, "mlflow_version", "") or "")
        if differs(made_by, mlflow.__version__):
            self.notes.append(version_note("mlflow", made_by, mlflow.__version__))

    def _inputs(self, schema: Any) -> List[Spec]:
        if schema is None:
            return self._undeclared()
        if schema.is_tensor_spec():
            return tensors(schema.inputs, INPUT)
        names = schema.input_names()
        kinds = [str(getattr(c.type, "name", "text")) for c in schema.inputs]
        if not schema.has_input_names() and len(kinds) > 1 and len(set(kinds)) == 1:
            return [spec(INPUT, COLUMNS.get(kinds[0], "BYTES"), [-1, len(kinds)])]
        if not schema.has_input_names():
            names = [INPUT] if len(kinds) == 1 else [str(i) for i in range(len(kinds))]
        self.table = schema.has_input_names()
        found = []
        for column, name, kind in zip(schema.inputs, names, kinds):
            self.kinds[str(name)] = kind
            one = spec(str(name), COLUMNS.get(kind, "BYTES"), [-1])
            if not getattr(column, "required", True):
                one["optional"] = True
            found.append(one)
        return found

    def _undeclared(self) -> List[Spec]:
        """The inputs of a model without a signature, from the estimator in it, if there is one."""
        raw = getattr(self.model, "get_raw_model", lambda: None)()
        found = shapes.layout(raw) if raw is not None else shapes.Layout("matrix", [], [], False)
        if found.kind != "table":
            return [
                spec(
                    INPUT,
                    "BYTES" if found.kind == "texts" else "FP64",
                    [-1] if found.kind == "texts" else [-1, len(found.columns) or -1],
                )
            ]
        self.table = True
        for name, column in zip(found.names, found.columns):
            self.kinds[name] = "string" if column and column.text else "double"
            if column is not None:
                self.samples[name] = np.array(
                    [column.value], dtype=object if column.text else float
                )
        return [spec(n, COLUMNS.get(k, "BYTES"), [-1]) for n, k in self.kinds.items()]

    def _outputs(self, schema: Any) -> List[Spec]:
        """The outputs by what one row of zeros gives, or else by the signature."""
        try:
            given = self._call(
                {
                    i["name"]: self.samples.get(i["name"], sample(i))
                    for i in self.signature["inputs"]
                }
            )
            return [spec(n, datatype(v.dtype), rows(v)) for n, v in given.items()]
        except Exception as failure:
            reason = "%s: %s" % (type(failure).__name__, failure)
        if schema is None:
            self.notes.append(
                "what the model gives is unknown: it has no signature, "
                "and on one row it fails with " + reason[:500]
            )
            return [spec(OUTPUT, "FP64", None)]
        if schema.is_tensor_spec():
            return tensors(schema.inputs, OUTPUT)
        names = schema.input_names() if schema.has_input_names() else [OUTPUT]
        return [
            spec(str(n), COLUMNS.get(str(getattr(c.type, "name", "")), "BYTES"), [-1])
            for n, c in zip(names, schema.inputs)
        ]

    def _call(self, values: Dict[str, Any]) -> Dict[str, Any]:
        import pandas

        values = {n: v for n, v in values.items() if v is not None}
        data: Any
        if self.table:
            data = pandas.DataFrame({n: column(v, self.kinds[n]) for n, v in values.items()})
        elif len(self.signature["inputs"]) == 1 and INPUT in values:
            data = values[INPUT]
            if data.ndim == 1 and self.kinds:
                data = pandas.DataFrame({0: column(data, self.kinds[INPUT])})
        elif self.kinds:
            data = pandas.DataFrame({int(n): column(v, self.kinds[n]) for n, v in values.items()})
        else:
            data = values
        return parts(self.model.predict(data))

    def compute(self, values: Dict[str, Any], chosen: List[str]) -> Outputs:
        given = self._call(values)
        names = [o["name"] for o in self.signature["outputs"]]
        if set(names) != set(given) and len(names) == len(given):
            given = dict(zip(names, given.values()))
        missing = [n for n in chosen if n not in given]
        if missing:
            raise ValueError("the model gave %s, without %r" % (", ".join(given), missing[0]))
        return [(n, given[n]) for n in chosen]


def parts(result: Any) -> Dict[str, Any]:
    """A prediction as named arrays: the columns of a table, the items of a dict, or one."""
    if hasattr(result, "columns") and hasattr(result, "iloc"):
        return {str(c): array(result[c]) for c in result.columns}
    if isinstance(result, dict):
        return {str(k): array(v) for k, v in result.items()}
    return {OUTPUT: array(result)}


def column(value: Any, kind: str) -> Any:
    """A column of a table as MLflow wants its type: what travelled as text becomes itself again."""
    if kind in COLUMNS or kind in ("string", ""):
        return value
    if kind == "datetime":
        import pandas

        return pandas.to_datetime(list(value))
    read = base64.b64decode if kind == "binary" else json.loads
    return [read(v) for v in value]


def sample(wants: Spec) -> Optional[Any]:
    """One row without content; None leaves an optional input out."""
    if wants.get("optional"):
        return None
    shape = [1 if n < 0 else n for n in wants["shape"]]
    if wants["datatype"] == "BYTES":
        value = np.empty(shape, dtype=object)
        value.fill("")
        return value
    from .model import NUMPY

    return np.zeros(shape, dtype=NUMPY[wants["datatype"]])


def tensors(specs: List[Any], alone: str) -> List[Spec]:
    """The tensors of a signature."""
    return [
        spec(
            str(t.name or alone),
            DATATYPES.get(np.dtype(t.type).name, "BYTES"),
            [int(n) for n in t.shape],
        )
        for t in specs
    ]


def load(path: str) -> Model:
    """Load a folder, given it or the MLmodel in it."""
    return PyFunc(path if os.path.isdir(path) else os.path.dirname(path))
