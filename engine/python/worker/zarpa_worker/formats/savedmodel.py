"""TensorFlow's SavedModel folders, by their serving signature."""

from __future__ import annotations

import os
from typing import Any, Dict, List

from ..errors import LoadError
from .model import Model, Outputs, Spec, differs, spec, texts, version_note

SERVING = "serving_default"
OWN = ("__saved_model_init_op", "__saved_model_train_op")


class SavedModel(Model):
    """A signature of a SavedModel; it computes all of its outputs in any case."""

    framework = "tensorflow"

    def __init__(self, directory: str) -> None:
        import tensorflow as tf

        self.tf = tf
        self.loaded = tf.saved_model.load(directory)  # its variables live as long as it does
        signatures = {n: f for n, f in self.loaded.signatures.items() if n not in OWN}
        if SERVING not in signatures and len(signatures) != 1:
            raise LoadError(
                "contract",
                "no signature %s among %s" % (SERVING, ", ".join(signatures) or "none at all"),
                "save it by model.export(folder), or with signatures=",
            )
        self.function = signatures.get(SERVING) or next(iter(signatures.values()))
        takes: Dict[str, Any] = self.function.structured_input_signature[1]
        gives: Dict[str, Any] = self.function.structured_outputs
        super().__init__(tf.__version__, described(takes), described(gives))
        made_by = str(getattr(self.loaded, "tensorflow_version", ""))
        if differs(made_by, tf.__version__):
            self.notes.append(version_note("tensorflow", made_by, tf.__version__))

    def compute(self, values: Dict[str, Any], chosen: List[str]) -> Outputs:
        results = self.function(**{n: self.tf.constant(v) for n, v in values.items()})
        return [(n, plain(results[n].numpy())) for n in chosen]


def plain(value: Any) -> Any:
    """A result without TensorFlow's bytes for texts."""
    return texts(value) if value.dtype.kind in "OS" else value


def described(specs: Dict[str, Any]) -> List[Spec]:
    """A signature's half, in the order of names: its map has none."""
    from .model import DATATYPES

    found = []
    for name in sorted(specs):
        dtype = specs[name].dtype.name
        if dtype not in DATATYPES and dtype != "string":
            raise LoadError(
                "contract",
                "%r is a %s, which no request can carry" % (name, dtype),
                "export a signature that takes and gives plain tensors",
            )
        shape = specs[name].shape
        found.append(
            spec(
                name,
                DATATYPES.get(dtype, "BYTES"),
                None if shape.rank is None else [-1 if n is None else n for n in shape.as_list()],
            )
        )
    return found


def load(path: str) -> Model:
    """Load a folder, given it or the saved_model.pb in it."""
    return SavedModel(path if os.path.isdir(path) else os.path.dirname(path))
