"""The entries that do not load, fail in a run, run long, or take too much."""

import numpy as np
from onnx import TensorProto, helper

from entry import F32, I64, Entry, f32, i64, model, node, value, weight

SIDE = 128  # of the square matrices in slow.onnx
TOO_MUCH = 2**42  # elements asked of oom.onnx: 16 TiB


def entries():
    return [*broken_files(), *refused(), *external(), *failing_runs(), *heavy()]


def plain(name, operator="Identity", **more):
    """Return y = operator(x), the least model there is."""
    nodes = [node(operator, ["x"], ["y"], domain=more.pop("domain", ""))]
    return model(name, nodes, [value("x", F32, ["n"])], [value("y", F32, ["n"])], **more)


def broken_files():
    whole = weighted("truncated", weight("w", np.ones(64, np.float32))).SerializeToString()
    for path, purpose, content in (
        ("truncated.onnx", "the first half of a model", whole[: len(whole) // 2]),
        ("not_onnx.onnx", "text under the name of a model", b"This is not a model.\n"),
        ("empty.onnx", "no bytes at all", b""),
    ):
        yield Entry(path, purpose, content, expect="refused")


def refused():
    for path, purpose, content in (
        ("opset_future.onnx", "operator set 99", plain("opset_future", opset=99)),
        ("ir_future.onnx", "IR version 99", plain("ir_future", ir=99)),
        (
            "custom_op.onnx",
            "an operator of a domain nobody knows",
            plain("custom_op", "Mystery", domain="com.example", domains=[("com.example", 1)]),
        ),
        ("unknown_op.onnx", "an operator the standard has not", plain("unknown_op", "Mystery")),
        ("type_clash.onnx", "float32 + int64", clash()),
    ):
        yield Entry(path, purpose, content, expect="refused")


def clash():
    inputs = [value("a", F32, ["n"]), value("b", I64, ["n"])]
    return model("type_clash", [node("Add", ["a", "b"], ["y"])], inputs, [value("y", F32, ["n"])])


def weighted(name, w):
    """Return y = x + w."""
    nodes = [node("Add", ["x", "w"], ["y"])]
    ends = [value("x", F32, ["batch", 4])], [value("y", F32, ["batch", 4])]
    return model(name, nodes, *ends, weights=[w])


def elsewhere(location, length=16, offset=0):
    """Return a weight of four floats kept in another file."""
    w = TensorProto(name="w", data_type=F32, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, content in (("location", location), ("offset", offset), ("length", length)):
        w.external_data.add(key=key, value=str(content))
    return w


def external():
    yield Entry(
        "external/model.onnx",
        "weights in a file beside the model: y = x + (1, 2, 3, 4)",
        weighted("external", elsewhere("weights.bin")),
        [{"x": np.zeros((1, 4), np.float32)}],
        data={"external/weights.bin": f32(1, 2, 3, 4).tobytes()},
    )
    for path, purpose, w in (
        ("external_escape.onnx", "weights in ../../etc/passwd", elsewhere("../../etc/passwd")),
        ("external_absolute.onnx", "weights in /etc/passwd", elsewhere("/etc/passwd")),
        ("external_missing.onnx", "weights in a file that is not there", elsewhere("none.bin")),
        (
            "external_short.onnx",
            "weights that end after the end of their file",
            elsewhere("external/weights.bin", offset=8),
        ),
        (
            "external_outside/model.onnx",
            "weights in a file that exists, one folder up",
            elsewhere("../add.onnx"),
        ),
    ):
        yield Entry(path, purpose, weighted("external", w), expect="refused")


def failing_runs():
    yield Entry(
        "shape_error.onnx",
        "loads; fails in the run when the size of x is no multiple of three",
        model(
            "shape_error",
            [node("Reshape", ["x", "shape"], ["y"])],
            [value("x", F32, ["n"])],
            [value("y", F32, ["m", 3])],
            weights=[weight("shape", i64(-1, 3))],
        ),
        [{"x": f32(1, 2, 3)}, {"x": f32(1, 2, 3, 4)}],
        expect="fails",
    )
    yield Entry(
        "poison_row.onnx",
        "table[index], four long: one bad row fails all rows run with it",
        model(
            "poison_row",
            [node("Gather", ["table", "index"], ["y"])],
            [value("index", I64, ["batch"])],
            [value("y", F32, ["batch"])],
            weights=[weight("table", f32(10, 20, 30, 40))],
        ),
        [{"index": i64(0, 3)}, {"index": i64(0, 7)}],
        expect="fails",
    )
    yield Entry(
        "not_finite.onnx",
        "log(x): answers that JSON has no number for",
        plain("not_finite", "Log"),
        [{"x": f32(1, 0, -1, np.inf)}],
    )
    yield Entry(
        "crash.onnx",
        "n / d in int64: -2^63 / -1 kills the process on x86-64 (not on arm64)",
        model(
            "crash",
            [node("Div", ["n", "d"], ["q"])],
            [value("n", I64, ["batch"]), value("d", I64, ["batch"])],
            [value("q", I64, ["batch"])],
        ),
        [{"n": i64(7), "d": i64(-1)}, {"n": i64(-(2**63)), "d": i64(-1)}],
        expect="crashes",
    )


def heavy():
    yield Entry(
        "slow.onnx",
        f"as many {SIDE}x{SIDE} matrix products as asked, one after the other; y is always 1",
        slow(),
        [{"iterations": i64(100)}, {"iterations": i64(10**9)}],
        expect="stops when told",
    )
    yield Entry(
        "oom.onnx",
        "makes a float32 tensor of the size asked, and gives its largest element: always 0",
        model(
            "oom",
            [
                node("ConstantOfShape", ["size"], ["zeros"]),
                node("ReduceMax", ["zeros"], ["y"], keepdims=0),
            ],
            [value("size", I64, [1])],
            [value("y", F32, [])],
        ),
        [{"size": i64(1000)}, {"size": i64(TOO_MUCH)}],
        expect="fails",
    )


def slow():
    """Return a Loop whose state, a matrix of ones, is multiplied by one that keeps it so."""
    square = [SIDE, SIDE]
    body = helper.make_graph(
        [node("MatMul", ["state", "mean"], ["next"]), node("Identity", ["go"], ["go_on"])],
        "body",
        [
            value("i", I64, []),
            value("go", TensorProto.BOOL, []),
            value("state", F32, square),
        ],
        [value("go_on", TensorProto.BOOL, []), value("next", F32, square)],
    )
    filled = [
        node("ConstantOfShape", ["square"], [name], value=weight("fill", f32(fill)))
        for name, fill in (("ones", 1), ("mean", 1 / SIDE))
    ]
    nodes = [
        *filled,
        node("Loop", ["iterations", "", "ones"], ["last"], body=body),
        node("ReduceMean", ["last"], ["y"], keepdims=0),
    ]
    ends = [value("iterations", I64, [1])], [value("y", F32, [])]
    return model("slow", nodes, *ends, weights=[weight("square", i64(*square))])
