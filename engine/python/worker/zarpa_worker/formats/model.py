"""What the models of all formats share: signatures, and values on their way in and out.

A value of numbers is a NumPy array. A value of texts (BYTES) is an array of objects, each a str, in
the value's shape; on the way in, a list and elements of bytes are taken, too.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import InvalidInput, LoadError

Spec = Dict[str, Any]
Outputs = List[Tuple[str, Any]]

# NumPy's names of types and the protocol's.
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
NUMPY = {datatype: np.dtype(name) for name, datatype in DATATYPES.items()}


class Model:
    """A model in memory. run may be called by one thread at a time.

    signature is {"inputs": [...], "outputs": [...]} with a name, datatype and shape each, -1 where
    a request chooses the size, and "columns", the names of a matrix's columns, where they are
    known; "methods", where it is there, names what outputs are called after.
    notes are warnings for the log.
    """

    framework = ""

    def __init__(self, version: str, inputs: List[Spec], outputs: List[Spec]) -> None:
        self.framework_version = version
        self.signature: Dict[str, Any] = {"inputs": inputs, "outputs": outputs}
        self.notes: List[str] = []

    def run(self, inputs: Dict[str, Any], wanted: Optional[List[str]]) -> Outputs:
        """Run the model once. wanted names outputs, None is all; they come in the signature's
        order.

        Raises InvalidInput for what the caller can change; all else is the model's own failure.
        """
        values = {spec["name"]: taken(inputs, spec) for spec in self.signature["inputs"]}
        unknown = [name for name in inputs if name not in values]
        if unknown:
            raise InvalidInput("input %r: unknown" % unknown[0], "known are " + ", ".join(values))
        names = [spec["name"] for spec in self.signature["outputs"]]
        chosen = names if wanted is None else [name for name in names if name in wanted]
        if wanted is not None and len(chosen) < len(set(wanted)):
            name = next(name for name in wanted if name not in names)
            raise InvalidInput("output %r: unknown" % name, "known are " + ", ".join(names))
        return self.compute(values, chosen)

    def compute(self, values: Dict[str, Any], chosen: List[str]) -> Outputs:
        """Run the model on checked values; a value is None where an optional input was left out."""
        raise TypeError("a model computes")  # abstract


def spec(name: str, datatype: str, shape: Optional[Sequence[int]]) -> Spec:
    """An input or output of a signature; shape is None where even the number of dimensions is
    unknown.
    """
    return {
        "name": name,
        "datatype": datatype,
        "shape": None if shape is None else [int(n) for n in shape],
    }


def datatype(dtype: Any) -> str:
    """The protocol's name of a NumPy type; texts and objects are BYTES."""
    dtype = np.dtype(dtype)
    if dtype.kind in "OUS":
        return "BYTES"
    if dtype.name not in DATATYPES:
        raise LoadError("model", "the model works with %s, which no request can carry" % dtype.name)
    return DATATYPES[dtype.name]


def taken(inputs: Dict[str, Any], wants: Spec) -> Any:
    """An input's value in the type of the signature, after its shape was checked."""
    name, shape = wants["name"], wants["shape"]
    if name not in inputs:
        if wants.get("optional"):
            return None
        raise InvalidInput("input %r: missing" % name)
    value = inputs[name]
    if wants["datatype"] == "BYTES":
        value = texts(value)
    else:
        value = np.asarray(value)
        if value.dtype != NUMPY[wants["datatype"]]:
            value = value.astype(NUMPY[wants["datatype"]])
    if shape is None:
        return value
    if (
        value.ndim == 1
        and len(shape) == 2
        and shape[1] > 0
        and value.size % shape[1] == 0
        and isinstance(inputs[name], list)
    ):
        value = value.reshape(-1, shape[1])  # a flat list has lost its shape
    if value.ndim != len(shape) or any(w >= 0 and w != n for w, n in zip(shape, value.shape)):
        raise InvalidInput(
            "input %r: shape %s, the model takes %s" % (name, list(value.shape), shape),
            "-1 may be any size",
        )
    return value


def texts(value: Any) -> Any:
    """Texts as an array of str."""
    array = np.asarray(value, dtype=object)
    flat = np.empty(array.size, dtype=object)
    flat[:] = [
        item.decode("utf-8", "replace") if isinstance(item, (bytes, bytearray)) else item
        for item in array.ravel()
    ]
    return flat.reshape(array.shape)


def array(result: Any) -> Any:
    """A framework's result as an array that a tensor can carry: sparse matrices in full, tables as
    their values, texts and objects as an array of str."""
    if hasattr(result, "toarray"):
        result = result.toarray()
    if hasattr(result, "to_numpy"):
        result = result.to_numpy()
    result = np.asarray(result)
    if result.dtype.kind in "OUSMm":
        flat = np.empty(result.size, dtype=object)
        flat[:] = [text_of(item) for item in result.ravel()]
        return flat.reshape(result.shape)
    return result


def text_of(item: Any) -> str:
    """One object as a text."""
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    return item if isinstance(item, str) else str(item)


def rows(result: Any) -> List[int]:
    """The shape of a result whose first dimension counts the rows of a request."""
    return [-1, *result.shape[1:]] if result.ndim else []


def differs(made_by: str, has: str) -> bool:
    """Whether two versions differ in more than a patch."""
    return bool(made_by and has) and made_by.split(".")[:2] != has.split(".")[:2]


def version_note(framework: str, made_by: str, has: str) -> str:
    """The warning for a model that another version made."""
    return (
        "the model was made by %s %s, this environment has %s: "
        "its predictions may differ; pin %s==%s"
        % (
            framework,
            made_by,
            has,
            framework,
            made_by,
        )
    )
