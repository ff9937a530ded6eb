"""Write the zoo: tiny ONNX models, each of which asks one question of an engine.

    python make_zoo.py

writes every model beside this file, asks ONNX Runtime what it makes of each
(answers.py), asserts what the conformance suite relies on, and writes the table of
README.md from what was seen. The bytes written are the same each time.
"""

import pathlib

import numpy as np
from onnx import ModelProto, TensorProto, helper

import answers
import failing
from entry import BOOL, F32, I64, IR, ML, OPSET, STR, Entry
from entry import f32, i64, model, node, text, typed, value, weight

HERE = pathlib.Path(__file__).parent

# -- element types ---------------------------------------------------------------

# The tensor element types ONNX Runtime takes, and bytes for three elements of those
# that numpy cannot say (the same three in every float: 1, 2, -1).
TAKEN = {
    "float": f32(1, 2, -1),
    "double": np.array([1, 2, -1], np.float64),
    "float16": np.array([1, 2, -1], np.float16),
    "bfloat16": np.array([0x3F80, 0x4000, 0xBF80], np.uint16),
    "float8e4m3fn": np.array([0x38, 0x40, 0xB8], np.uint8),
    "float8e4m3fnuz": np.array([0x40, 0x48, 0xC0], np.uint8),
    "float8e5m2": np.array([0x3C, 0x40, 0xBC], np.uint8),
    "float8e5m2fnuz": np.array([0x40, 0x44, 0xC0], np.uint8),
    "int8": np.array([-128, 0, 127], np.int8),
    "int16": np.array([-32768, 0, 32767], np.int16),
    "int32": np.array([-(2**31), 0, 2**31 - 1], np.int32),
    "int64": np.array([-(2**63), 0, 2**63 - 1], np.int64),
    "uint8": np.array([0, 1, 255], np.uint8),
    "uint16": np.array([0, 1, 65535], np.uint16),
    "uint32": np.array([0, 1, 2**32 - 1], np.uint32),
    "uint64": np.array([0, 1, 2**64 - 1], np.uint64),
    "bool": np.array([True, False, True]),
    "string": text("", "zarpa", "\u00f1 \u2603 \U0001f6a2"),
}
RAW = ("bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz")
REFUSED = {  # type -> the oldest (opset, IR version) that has it
    "complex64": (OPSET, IR),
    "complex128": (OPSET, IR),
    "int4": (OPSET, IR),
    "uint4": (OPSET, IR),
    "float4e2m1": (23, 11),
    "float8e8m0": (24, 12),
    "int2": (25, 13),
    "uint2": (25, 13),
    "float6e2m3": (25, 13),
    "float6e3m2": (25, 13),
}
CAST = ("int4", "uint4", "int2", "uint2", "float8e8m0")  # no Identity, but a Cast


def element(name):
    return TensorProto.DataType.Value(name.upper())


def identity(name, opset=OPSET, ir=IR):
    kind, shape = element(name), ["n"]
    nodes = [node("Identity", ["x"], ["y"])]
    ends = [value("x", kind, shape)], [value("y", kind, shape)]
    return model(f"identity_{name}", nodes, *ends, opset=opset, ir=ir)


def cast(name, source, target):
    opset, ir = REFUSED[name]
    nodes = [node("Cast", ["x"], ["y"], to=target)]
    ends = [value("x", source, ["n"])], [value("y", target, ["n"])]
    return model("cast", nodes, *ends, opset=opset, ir=ir)


def element_types():
    for name, array in TAKEN.items():
        feed = answers.raw(array, element(name)) if name in RAW else array
        yield Entry(f"identity_{name}.onnx", f"{name} in and out", identity(name), [{"x": feed}])
    for name, (opset, ir) in REFUSED.items():
        yield Entry(
            f"identity_{name}.onnx",
            f"{name}: a type ONNX has and Identity here has not",
            identity(name, opset, ir),
            expect="refused",
        )
    for name in CAST:
        kind = element(name)
        there = f"to_{name}.onnx"
        yield Entry(there, f"{name} as output", cast(name, F32, kind), [{"x": f32(1, 1, 1)}])
        back = {"x": answers.Output(there, {"x": f32(1, 1, 1)})}
        yield Entry(f"from_{name}.onnx", f"{name} as input", cast(name, kind, F32), [back])


# -- shapes ----------------------------------------------------------------------


def double(name, shape):
    nodes = [node("Add", ["x", "x"], ["y"])]
    return model(name, nodes, [value("x", F32, shape)], [value("y", F32, shape)])


def shapes():
    row = np.arange(6, dtype=np.float32).reshape(3, 2)
    yield Entry(
        "scalar.onnx", "rank 0 in and out", double("scalar", []), [{"x": np.array(3, np.float32)}]
    )
    yield Entry(
        "rank8.onnx",
        "eight dimensions",
        double("rank8", [1, 2, 1, 2, 1, 2, 1, 2]),
        [{"x": np.ones((1, 2, 1, 2, 1, 2, 1, 2), np.float32)}],
    )
    yield Entry(
        "zero_size.onnx",
        "a dimension of zero, in and out",
        double("zero_size", ["n", 3]),
        [{"x": np.zeros((0, 3), np.float32)}],
    )
    yield Entry(
        "no_shape.onnx",
        "input and output of unknown rank",
        double("no_shape", None),
        [{"x": row}],
    )
    yield Entry(
        "dynamic_named.onnx",
        "two free dimensions with names",
        double("dynamic_named", ["batch", "seq"]),
        [{"x": row}],
    )
    yield Entry(
        "unnamed_dim.onnx",
        "a free dimension without a name",
        double("unnamed_dim", [None, 2]),
        [{"x": row}],
    )
    yield Entry(
        "batch_double.onnx",
        "x * 2: rows may be run together",
        double("batch_double", ["batch", 2]),
        [{"x": row}],
    )
    yield Entry(
        "fixed_batch.onnx",
        "x * 2, one row only: rows may not be run together; three rows are an error",
        double("fixed_batch", [1, 2]),
        [{"x": row[:1]}, {"x": row}],
        expect="fails",
    )
    yield Entry(
        "batch_sum.onnx",
        "sum over all rows: free first dimension in, none out; rows may not be run together",
        model(
            "batch_sum",
            [node("ReduceSum", ["x"], ["total"], keepdims=0)],
            [value("x", F32, ["batch", 2])],
            [value("total", F32, [])],
        ),
        [{"x": row}],
    )


# -- several inputs and outputs ----------------------------------------------------


def mixed():
    """Named columns of three types, as a table has them."""
    city = node(
        "LabelEncoder",
        ["city"],
        ["worth"],
        domain=ML,
        keys_strings=["lisboa", "sevilla"],
        values_floats=[100.0, 200.0],
        default_float=-1.0,
    )
    nodes = [
        city,
        node("Cast", ["n"], ["count"], to=F32),
        node("Add", ["age", "count"], ["sum"]),
        node("Add", ["sum", "worth"], ["score"]),
        node("Greater", ["score", "limit"], ["high"]),
        node("Identity", ["city"], ["town"]),
    ]
    column = ["batch", 1]
    inputs = [value("age", F32, column), value("city", STR, column), value("n", I64, column)]
    outputs = [value("score", F32, column), value("high", BOOL, column), value("town", STR, column)]
    weights = [weight("limit", f32(150))]
    return model("mixed", nodes, inputs, outputs, weights=weights, domains=[(ML, 3)])


def several():
    pair = ["batch", 2]
    yield Entry(
        "add.onnx",
        "two inputs: sum = a + b",
        model(
            "add",
            [node("Add", ["a", "b"], ["sum"])],
            [value("a", F32, pair), value("b", F32, pair)],
            [value("sum", F32, pair)],
        ),
        [{"a": np.ones((1, 2), np.float32), "b": np.full((1, 2), 2, np.float32)}],
    )
    yield Entry(
        "mixed.onnx",
        "columns of three types: score = age + n + (lisboa 100, sevilla 200, else -1)",
        mixed(),
        [
            {
                "age": f32(30, 40).reshape(2, 1),
                "city": text("lisboa", "sevilla").reshape(2, 1),
                "n": i64(1, 2).reshape(2, 1),
            }
        ],
    )
    yield Entry(
        "default_input.onnx",
        "b has a default (100) and may be left out: sum = a + b",
        model(
            "default_input",
            [node("Add", ["a", "b"], ["sum"])],
            [value("a", F32, ["batch"]), value("b", F32, [1])],
            [value("sum", F32, ["batch"])],
            weights=[weight("b", f32(100))],
        ),
        [{"a": f32(1, 2)}, {"a": f32(1, 2), "b": f32(5)}],
    )
    yield Entry(
        "empty_output.onnx",
        "a node leaves optional outputs out by empty names; sizes known only after the run",
        model(
            "empty_output",
            [node("Unique", ["x"], ["values", "", "", "counts"])],
            [value("x", F32, ["n"])],
            [value("values", F32, ["u"]), value("counts", I64, ["u"])],
        ),
        [{"x": f32(2, 1, 2)}],
    )


# -- sequences, maps, optionals ------------------------------------------------------

TENSOR = helper.make_tensor_type_proto(F32, ["n"])
SEQUENCE = helper.make_sequence_type_proto(TENSOR)
OPTIONAL = helper.make_optional_type_proto(TENSOR)


def map_of(key):
    return helper.make_map_type_proto(key, helper.make_tensor_type_proto(F32, []))


def zipmap(name, key, **classes):
    output = typed("probabilities", helper.make_sequence_type_proto(map_of(key)))
    nodes = [node("ZipMap", ["x"], ["probabilities"], domain=ML, **classes)]
    return model(name, nodes, [value("x", F32, ["batch", 3])], [output], domains=[(ML, 3)])


def vectorizer(name, key, **words):
    nodes = [node("DictVectorizer", ["x"], ["y"], domain=ML, **words)]
    ends = [typed("x", map_of(key))], [value("y", F32, [1, 3])]
    return model(name, nodes, *ends, domains=[(ML, 3)])


def sequences():
    yield Entry(
        "sequence_tensors.onnx",
        "a sequence of tensors as output",
        model(
            "sequence_tensors",
            [node("SequenceConstruct", ["a", "b"], ["y"])],
            [value("a", F32, ["n"]), value("b", F32, ["m"])],
            [typed("y", SEQUENCE)],
        ),
        [{"a": f32(1, 2), "b": f32(3)}],
    )
    yield Entry(
        "sequence_empty.onnx",
        "a sequence of no tensors as output",
        model(
            "sequence_empty",
            [node("SequenceEmpty", [], ["y"], dtype=F32), node("Identity", ["x"], ["z"])],
            [value("x", F32, ["n"])],
            [typed("y", SEQUENCE), value("z", F32, ["n"])],
        ),
        [{"x": f32(1)}],
    )
    yield Entry(
        "sequence_input.onnx",
        "a sequence of tensors as input; an empty one is an error of the model",
        model(
            "sequence_input",
            [node("ConcatFromSequence", ["x"], ["y"], axis=0)],
            [typed("x", SEQUENCE)],
            [value("y", F32, ["n"])],
        ),
        [{"x": [f32(1, 2), f32(3)]}, {"x": []}],
        expect="fails",
    )


def maps():
    rows = f32(0.5, 0.25, 0.25, 0, 1, 0).reshape(2, 3)
    names = ["setosa", "versicolor", "virginica"]
    yield Entry(
        "zipmap_int64.onnx",
        "sequence of map(int64, float), as scikit-learn's classifiers give",
        zipmap("zipmap_int64", I64, classlabels_int64s=[0, 1, 2]),
        [{"x": rows}],
    )
    yield Entry(
        "zipmap_string.onnx",
        "sequence of map(string, float)",
        zipmap("zipmap_string", STR, classlabels_strings=names),
        [{"x": rows}],
    )
    yield Entry(
        "map_input_string.onnx",
        "map(string, float) as input; keys not in the vocabulary are dropped",
        vectorizer("map_input_string", STR, string_vocabulary=["a", "b", "c"]),
        [{"x": {"b": 2.0, "z": 9.0}}],
    )
    yield Entry(
        "map_input_int64.onnx",
        "map(int64, float) as input",
        vectorizer("map_input_int64", I64, int64_vocabulary=[1, 2, 3]),
        [{"x": {2: 2.0, 9: 9.0}}],
    )


def optionals():
    yield Entry(
        "optional_output.onnx",
        "an optional that is there",
        model(
            "optional_output",
            [node("Optional", ["x"], ["y"])],
            [value("x", F32, ["n"])],
            [typed("y", OPTIONAL)],
        ),
        [{"x": f32(1, 2)}],
    )
    yield Entry(
        "optional_none.onnx",
        "an optional that is not there",
        model(
            "optional_none",
            [node("Optional", [], ["y"], type=TENSOR), node("Identity", ["x"], ["z"])],
            [value("x", F32, ["n"])],
            [typed("y", OPTIONAL), value("z", F32, ["n"])],
        ),
        [{"x": f32(1, 2)}],
    )
    yield Entry(
        "optional_input.onnx",
        "an optional input, given and left out",
        model(
            "optional_input",
            [node("OptionalHasElement", ["x"], ["given"])],
            [typed("x", OPTIONAL)],
            [value("given", BOOL, [])],
        ),
        [{"x": f32(1)}, {"x": None}],
    )


def main():
    entries = []
    for part in (element_types, shapes, several, sequences, maps, optionals):
        entries += part()
    entries += failing.entries()
    for entry in entries:
        write(HERE / entry.path, entry.model)
        for path, content in entry.data.items():
            (HERE / path).write_bytes(content)
    answers.check(HERE, entries)


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, ModelProto):
        content = content.SerializeToString(deterministic=True)
    path.write_bytes(content)


if __name__ == "__main__":
    main()
