"""Tensors on the wire: a description in JSON, then each one's bytes, in steps of 64.

Numbers are numpy arrays over the channel's own memory, without a copy; a text is an array of
objects: str where its bytes are UTF-8, else bytes.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from .errors import InvalidInput

STEP = 64
LENGTH = struct.Struct("<I")
PADDING = bytes(STEP)

# numpy's types by the protocol's names.
TYPES: Dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "COMPLEX64": np.complex64,
    "COMPLEX128": np.complex128,
}
NAMES: Dict[Any, str] = {np.dtype(t): name for name, t in TYPES.items()}


def decode(payload: memoryview) -> Tuple[Dict[str, Any], Optional[List[str]]]:
    """The inputs by name, and the outputs wanted (None: all), of a RUN payload."""
    (size,) = LENGTH.unpack_from(payload)
    at = LENGTH.size + size
    described = json.loads(bytes(payload[LENGTH.size : at]))
    inputs: Dict[str, Any] = {}
    for value in described["inputs"]:
        at += -at % STEP
        raw = payload[at : at + value["size"]]
        at += value["size"]
        inputs[value["name"]] = array(raw, value)
    return inputs, described["wanted"]


def array(raw: memoryview, value: Dict[str, Any]) -> Any:
    """One input."""
    if value["datatype"] == "BYTES":
        return texts(raw, value["shape"])
    dtype = TYPES.get(value["datatype"])
    if dtype is None:
        raise InvalidInput(
            "input %r: numpy has no type for %s" % (value["name"], value["datatype"]),
            "send one of %s" % ", ".join(TYPES),
        )
    return np.frombuffer(raw, dtype).reshape(value["shape"])


def texts(raw: memoryview, shape: List[int]) -> Any:
    """Texts, each behind its length."""
    found: List[Any] = []
    at = 0
    while at < len(raw):
        (size,) = LENGTH.unpack_from(raw, at)
        at += LENGTH.size
        piece = bytes(raw[at : at + size])
        at += size
        try:
            found.append(piece.decode())
        except UnicodeDecodeError:
            found.append(piece)
    flat = np.empty(len(found), dtype=object)
    flat[:] = found
    return flat.reshape(shape)


def encode(outputs: List[Tuple[str, Any]]) -> List[Any]:
    """The parts of a TENSORS payload."""
    described: List[Dict[str, Any]] = []
    bodies: List[Any] = []
    for name, value in outputs:
        datatype, shape, body = raw_of(name, value)
        described.append({"name": name, "datatype": datatype, "shape": shape, "size": len(body)})
        bodies.append(body)
    text = json.dumps({"outputs": described}).encode()
    parts: List[Any] = [LENGTH.pack(len(text)), text]
    at = LENGTH.size + len(text)
    for body in bodies:
        parts += (PADDING[: -at % STEP], body)
        at += -at % STEP + len(body)
    return parts


def raw_of(name: str, value: Any) -> Tuple[str, List[int], Any]:
    """The type, shape and bytes of one output."""
    values = value if isinstance(value, np.ndarray) else np.array(value, dtype=object)
    if values is not value and not all(isinstance(v, (str, bytes)) for v in values.ravel().tolist()):
        values = np.asarray(value)
    shape = list(values.shape)
    if values.dtype.kind in "USO":
        pieces = []
        for item in values.ravel().tolist():
            if isinstance(item, str):
                piece = item.encode("utf-8", "surrogateescape")
            elif isinstance(item, bytes):
                piece = item
            else:
                raise TypeError("output %r: %s is no element of a tensor" % (name, type(item).__name__))
            pieces += (LENGTH.pack(len(piece)), piece)
        return "BYTES", shape, b"".join(pieces)
    little = values.dtype.newbyteorder("=")
    datatype = NAMES.get(little)
    if datatype is None:
        raise TypeError("output %r: the type %s is none that a tensor has" % (name, values.dtype))
    values = np.ascontiguousarray(values, dtype=little)
    if values.size == 0:
        return datatype, shape, b""
    return datatype, shape, memoryview(values.reshape(-1).view(np.uint8))
