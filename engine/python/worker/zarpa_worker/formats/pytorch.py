"""PyTorch models that need no Python class: TorchScript, and programs of torch.export."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import numpy as np

from ..errors import LoadError
from .model import NUMPY, Model, Outputs, Spec, spec

WRAP = (
    "wrap the model in a module that takes tensors "
    "and returns a tensor or a tuple of tensors, and save that"
)


class Script(Model):
    """A TorchScript module. Its file has the names of inputs, but neither their types nor their
    shapes: inputs are FP32, and INT64 where they choose from an embedding, of any shape."""

    framework = "torch"

    def __init__(self, path: str) -> None:
        import torch

        self.torch = torch
        self.module = torch.jit.load(path, map_location="cpu").eval()
        schema = self.module.forward.schema
        inputs = []
        for argument in schema.arguments[1:]:
            kind = str(argument.type)
            optional = argument.has_default_value() or kind.startswith("Optional")
            if "Tensor" in kind and not kind.startswith(("List", "Dict", "Tuple")):
                one = spec(argument.name, "INT64" if self._indexes(argument.name) else "FP32", None)
                if optional:
                    one["optional"] = True
                inputs.append(one)
            elif not optional:
                raise LoadError(
                    "contract",
                    "input %r of forward is a %s, which requests cannot carry"
                    % (argument.name, kind),
                    WRAP,
                )
        super().__init__(torch.__version__, inputs, script_outputs(schema.returns))

    def _indexes(self, name: str) -> bool:
        """Whether an input goes where only whole numbers can."""
        for value in self.module.inlined_graph.inputs():
            if value.debugName().partition(".")[0] == name:
                return any(
                    use.user.kind() in ("aten::embedding", "aten::one_hot", "aten::gather")
                    and use.offset == _place(use)
                    for use in value.uses()
                )
        return False

    def compute(self, values: Dict[str, Any], chosen: List[str]) -> Outputs:
        given = {n: tensor(self.torch, v) for n, v in values.items() if v is not None}
        with self.torch.inference_mode():
            result = self.module(**given)
        results = result if isinstance(result, (tuple, list)) else [result]
        names = [o["name"] for o in self.signature["outputs"]]
        return [(n, numbers(r)) for n, r in zip(names, results) if n in chosen]


def _place(use: Any) -> int:
    """Which argument of an operator the indexes are."""
    return {"aten::embedding": 1, "aten::one_hot": 0, "aten::gather": 2}[use.user.kind()]


def script_outputs(returns: Any) -> List[Spec]:
    """The outputs by the declared type of what forward returns."""
    kind = returns[0].type
    if str(kind) == "Tensor":
        return [spec("output", "FP32", None)]
    parts = kind.elements() if kind.kind() == "TupleType" else []
    if not parts or any(str(p) != "Tensor" for p in parts):
        raise LoadError(
            "contract", "forward returns a %s: neither a tensor nor a tuple of tensors" % kind, WRAP
        )
    return [spec("output_%d" % i, "FP32", None) for i in range(len(parts))]


def tensor(torch: Any, value: Any) -> Any:
    """An array as a tensor, in memory that PyTorch may write to."""
    value = np.ascontiguousarray(value)
    return torch.from_numpy(value if value.flags.writeable else value.copy())


def numbers(result: Any) -> Any:
    """A tensor as an array; NumPy knows no bfloat16."""
    result = result.detach().cpu()
    return (result.float() if str(result.dtype) == "torch.bfloat16" else result).numpy()


class Program(Model):
    """A program of torch.export, which knows types and shapes."""

    framework = "torch"

    def __init__(self, path: str) -> None:
        import torch
        import torch.utils._pytree as tree

        self.torch, self.tree = torch, tree
        program = torch.export.load(path)
        self.module = program.module()
        self.takes = program.call_spec.in_spec
        nodes = {node.name: node for node in program.graph.nodes}
        inputs = []
        self.arguments: List[Any] = []  # (name of an input, its type), or (None, a constant)
        for argument in program.graph_signature.user_inputs:
            node = nodes.get(argument) if isinstance(argument, str) else None
            value = node.meta.get("val") if node is not None else None
            if value is None or not hasattr(value, "shape"):
                self.arguments.append((None, argument))
                continue
            self.arguments.append((argument, value.dtype))
            inputs.append(spec(argument, named(value.dtype), sizes(value.shape)))
        outputs = []
        given = [
            nodes[o].meta.get("val")
            for o in program.graph_signature.user_outputs
            if isinstance(o, str)
        ]
        for name, value in zip(output_names(program.call_spec.out_spec, len(given)), given):
            outputs.append(spec(name, named(value.dtype), sizes(value.shape)))
        super().__init__(torch.__version__, inputs, outputs)

    def compute(self, values: Dict[str, Any], chosen: List[str]) -> Outputs:
        flat = [
            what if name is None else tensor(self.torch, values[name]).to(what)
            for name, what in self.arguments
        ]
        positional, keywords = self.tree.tree_unflatten(flat, self.takes)
        with self.torch.inference_mode():
            results, _ = self.tree.tree_flatten(self.module(*positional, **keywords))
        names = [o["name"] for o in self.signature["outputs"]]
        return [(n, numbers(r)) for n, r in zip(names, results) if n in chosen]


def named(dtype: Any) -> str:
    """The protocol's name of a type of PyTorch's."""
    name = str(dtype).partition(".")[2]
    known = {str(t): n for n, t in NUMPY.items()}
    if name == "bfloat16":
        return "FP32"
    if name not in known:
        raise LoadError(
            "contract", "the program works with %s, which no request can carry" % name, WRAP
        )
    return known[name]


def sizes(shape: Any) -> List[int]:
    """A shape whose symbolic dimensions are free."""
    return [n if isinstance(n, int) else -1 for n in shape]


def output_names(structure: Any, count: int) -> List[str]:
    """The names of outputs: the keys, where the program gives a dict."""
    keys: Optional[List[Any]] = (
        structure.context if getattr(structure, "type", None) is dict else None
    )
    if keys is not None and len(keys) == count:
        return [str(k) for k in keys]
    return ["output"] if count == 1 else ["output_%d" % i for i in range(count)]


def load_script(path: str) -> Model:
    """Load what torch.jit.save wrote."""
    return Script(path)


def load_export(path: str) -> Model:
    """Load what torch.export.save wrote."""
    return Program(path)
