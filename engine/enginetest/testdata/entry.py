"""An entry of the zoo, and the few words all entries are written in."""

import dataclasses

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

OPSET, IR = 21, 10  # what most models are written for; newer only where a type needs it
F32, I64, STR, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL
ML = "ai.onnx.ml"

value = helper.make_tensor_value_info
typed = helper.make_value_info  # a graph input or output of a type that is not a tensor
node = helper.make_node


@dataclasses.dataclass
class Entry:
    """One model: where it is, what it is for, and what to ask it."""

    path: str
    purpose: str
    model: ModelProto | bytes
    feeds: list = dataclasses.field(default_factory=list)  # one run each
    expect: str = "runs"  # one of answers.EXPECTATIONS
    data: dict = dataclasses.field(default_factory=dict)  # other files: path -> bytes


def model(name, nodes, inputs, outputs, *, weights=(), opset=OPSET, ir=IR, domains=()):
    """Return a ModelProto; domains are those beside the default one, as (name, version)."""
    graph = helper.make_graph(nodes, name, inputs, outputs, list(weights))
    opsets = [helper.make_opsetid(d, v) for d, v in (("", opset), *domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, producer_name="zoo")


def weight(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def f32(*values):
    return np.array(values, np.float32)


def i64(*values):
    return np.array(values, np.int64)


def text(*values):
    return np.array(values, object)
