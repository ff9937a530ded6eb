"""Keras models in .keras and HDF5 files."""

from __future__ import annotations

import json
import zipfile
from typing import Any, Dict, List

import numpy as np

from ..errors import LoadError
from .model import DATATYPES, NUMPY, Model, Outputs, Spec, array, differs, spec, version_note


class Keras(Model):
    """A Keras model, without what training needs. Layers with code of their own are refused by
    Keras itself.
    """

    framework = "keras"

    def __init__(self, path: str) -> None:
        import keras

        self.model = keras.models.load_model(path, compile=False)
        if not self.model.inputs:
            raise LoadError(
                "contract",
                "the model does not say what it takes: it was saved before it was built",
                "call the model on one row, then save it again",
            )
        super().__init__(
            keras.__version__,
            described(self.model.inputs, input_names(self.model)),
            described(self.model.outputs, output_names(self.model)),
        )
        made_by = version_in(path)
        if differs(made_by, keras.__version__):
            self.notes.append(version_note("keras", made_by, keras.__version__))
        self._warm_up()

    def _warm_up(self) -> None:
        """Predict for one row and for two: Keras compiles for the first, and for any number with
        the second. A model that cannot, such as one of texts, compiles with its first requests."""
        try:
            for count in (1, 2):
                rows = [
                    np.zeros([count, *i["shape"][1:]], NUMPY[i["datatype"]])
                    for i in self.signature["inputs"]
                ]
                self.model.predict_on_batch(rows if len(rows) > 1 else rows[0])
        except Exception:
            pass  # a prediction that matters says it itself

    def compute(self, values: Dict[str, Any], chosen: List[str]) -> Outputs:
        given = [values[i["name"]] for i in self.signature["inputs"]]
        given = [text_tensor(v) if v.dtype.kind == "O" else v for v in given]
        results = self.model.predict_on_batch(given if len(given) > 1 else given[0])
        names = [o["name"] for o in self.signature["outputs"]]
        if isinstance(results, dict):
            results = (
                [results[k] for k in sorted(results)]
                if set(names) != set(results)
                else [results[n] for n in names]
            )
        elif not isinstance(results, (list, tuple)):
            results = [results]
        return [(n, array(r)) for n, r in zip(names, results) if n in chosen]


def text_tensor(value: Any) -> Any:
    """Texts as Keras takes them."""
    import tensorflow as tf

    return tf.constant(value)


def input_names(model: Any) -> List[str]:
    """The names of the inputs, as the layers that take them are called."""
    return [str(i.name).partition(":")[0] for i in model.inputs]


def output_names(model: Any) -> List[str]:
    """The names of the outputs: those of the layers that give them, or of the keys."""
    structure = getattr(model, "_outputs_struct", None)
    if isinstance(structure, dict):
        return sorted(str(k) for k in structure)
    names = list(getattr(model, "output_names", None) or [])
    if len(names) != len(model.outputs) or len(set(names)) != len(names):
        names = (
            ["output"]
            if len(model.outputs) == 1
            else ["output_%d" % i for i in range(len(model.outputs))]
        )
    return names


def described(values: Any, names: List[str]) -> List[Spec]:
    """A half of the signature."""
    found = []
    for value, name in zip(values, names):
        dtype = str(getattr(value.dtype, "name", value.dtype))
        if dtype not in DATATYPES and dtype != "string":
            raise LoadError("contract", "%r is a %s, which no request can carry" % (name, dtype))
        found.append(
            spec(name, DATATYPES.get(dtype, "BYTES"), [-1 if n is None else n for n in value.shape])
        )
    return found


def version_in(path: str) -> str:
    """The version of Keras that saved a file, empty where it does not tell."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
        import h5py

        with h5py.File(path, "r") as file:
            return str(file.attrs.get("keras_version", ""))
    except (OSError, KeyError, ValueError, ImportError):
        return ""  # a help only: the model is loaded without it


def load(path: str) -> Model:
    """Load a .keras or HDF5 file."""
    return Keras(path)
