"""Write the models that the benchmarks serve: ten_ms.onnx, wide.onnx and forest.onnx.

    python make_ms.py

The bytes written are the same each time. What the benchmarks rely on is
asserted; how long a run takes on this machine is printed.
"""

import pathlib
import statistics
import time

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

HERE = pathlib.Path(__file__).parent
SEED = 7
OPSET, IR = 21, 10
MOST_BYTES = 100_000  # of a model file
LONGEST_LOAD = 0.2  # seconds

# ten_ms.onnx: an image of 3x32x32, flat, and BLOCKS equal convolutions on it.
PIXELS = 3 * 32 * 32
CHANNELS = 32
BLOCKS = 50  # sets the time: 9.4 million multiply-adds, about 0.2 ms, each
STEP = 0.05  # how much of a block's answer is added to what came in
RUNS = 40

# wide.onnx: LAYERS dense layers of WIDTH x WIDTH.
WIDTH = 1024
LAYERS = 4  # sets the time: 4 MB of weights to read, about 0.1 ms, each

# forest.onnx
TREES, DEPTH = 16, 5


def ten_ms():
    """Return a residual network whose blocks share one kernel: small file, real work.

    Nothing in it is constant but the kernel, so no optimizer can fold the work
    away. The residual sum keeps the numbers finite however many blocks there are.
    """
    noise = np.random.default_rng(SEED)

    def weight(name, *shape, fan):
        drawn = noise.normal(0, (2 / fan) ** 0.5, shape).astype(np.float32)
        return numpy_helper.from_array(drawn, name)

    weights = [
        numpy_helper.from_array(np.array([-1, 3, 32, 32], np.int64), "image_shape"),
        numpy_helper.from_array(np.array(STEP, np.float32), "step"),
        weight("stem", CHANNELS, 3, 3, 3, fan=27),
        weight("kernel", CHANNELS, CHANNELS, 3, 3, fan=CHANNELS * 9),
        weight("dense", CHANNELS, 10, fan=CHANNELS),
    ]
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Reshape", ["x", "image_shape"], ["image"]),
        helper.make_node("Conv", ["image", "stem"], ["stage0"], **same),
    ]
    for i in range(BLOCKS):
        nodes += [
            helper.make_node("Conv", [f"stage{i}", "kernel"], [f"conv{i}"], **same),
            helper.make_node("Relu", [f"conv{i}"], [f"relu{i}"]),
            helper.make_node("Mul", [f"relu{i}", "step"], [f"part{i}"]),
            helper.make_node("Add", [f"stage{i}", f"part{i}"], [f"stage{i + 1}"]),
        ]
    nodes += [
        helper.make_node("GlobalAveragePool", [f"stage{BLOCKS}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "dense"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "ten_ms",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", PIXELS])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR
    )


def wide():
    """Return dense layers with weights that the runtime makes as it loads: small file, much memory.

    A row reads every weight and uses it once. In a batch all rows use it: what a run
    costs beside its rows is nearly all of it, which is what batching saves.
    """
    weights = [
        numpy_helper.from_array(np.array(1, np.float32), "one"),
        numpy_helper.from_array(np.array(12.9898, np.float32), "step"),
        numpy_helper.from_array(np.array(43758.547, np.float32), "stretch"),
        numpy_helper.from_array(np.array(0.5, np.float32), "half"),
        numpy_helper.from_array(np.array((24 / WIDTH) ** 0.5, np.float32), "scale"),
        numpy_helper.from_array(np.array([WIDTH, WIDTH], np.int64), "square"),
        numpy_helper.from_array(np.array([0], np.int64), "first"),
        numpy_helper.from_array(np.array([10], np.int64), "classes"),
        numpy_helper.from_array(np.array([1], np.int64), "columns"),
    ]
    nodes = []
    for i in range(LAYERS):
        size, begin = WIDTH * WIDTH, 7919 * (i + 1)
        weights += [
            numpy_helper.from_array(np.array(begin, np.float32), f"from{i}"),
            numpy_helper.from_array(np.array(begin + size, np.float32), f"to{i}"),
        ]
        nodes += [  # numbers between -0.5 and 0.5 without a pattern, then the scale that keeps a row's size
            helper.make_node("Range", [f"from{i}", f"to{i}", "one"], [f"numbers{i}"]),
            helper.make_node("Mul", [f"numbers{i}", "step"], [f"steps{i}"]),
            helper.make_node("Sin", [f"steps{i}"], [f"waves{i}"]),
            helper.make_node("Mul", [f"waves{i}", "stretch"], [f"stretched{i}"]),
            helper.make_node("Floor", [f"stretched{i}"], [f"floor{i}"]),
            helper.make_node("Sub", [f"stretched{i}", f"floor{i}"], [f"noise{i}"]),
            helper.make_node("Sub", [f"noise{i}", "half"], [f"centred{i}"]),
            helper.make_node("Mul", [f"centred{i}", "scale"], [f"flat{i}"]),
            helper.make_node("Reshape", [f"flat{i}", "square"], [f"weights{i}"]),
            helper.make_node("MatMul", [f"stage{i}" if i else "x", f"weights{i}"], [f"sum{i}"]),
            helper.make_node("Relu", [f"sum{i}"], [f"stage{i + 1}"]),
        ]
    nodes += [
        helper.make_node("Slice", [f"stage{LAYERS}", "first", "classes", "columns"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR
    )


def forest():
    """Return a random forest on scikit-learn's digits, probabilities as a plain tensor."""
    rows, labels = load_digits(return_X_y=True)
    rows = rows.astype(np.float32)
    classifier = RandomForestClassifier(TREES, max_depth=DEPTH, random_state=SEED)
    classifier.fit(rows, labels)
    onnx_model = convert_sklearn(
        classifier,
        name="forest",
        initial_types=[("x", FloatTensorType([None, rows.shape[1]]))],
        target_opset={"": OPSET, "ai.onnx.ml": 3},
        options={"zipmap": False},
    )
    ends = [*onnx_model.graph.input, *onnx_model.graph.output]
    for end in ends:
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx_model.opset_import.sort(key=lambda opset: opset.domain)  # else by chance
    return onnx_model, classifier, rows


def load(path):
    """Return a session on one thread and the seconds it took to make."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    start = time.perf_counter()
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session, time.perf_counter() - start


def write(name, onnx_model):
    """Write the model, load it, and return the session and the seconds that took."""
    path = HERE / name
    path.write_bytes(onnx_model.SerializeToString(deterministic=True))
    size = path.stat().st_size
    assert size < MOST_BYTES, f"{name} has {size} bytes"
    session, seconds = load(path)
    assert seconds < LONGEST_LOAD, f"{name} takes {seconds:.3f} s to load"
    print(f"{name}: {size} bytes, loaded in {seconds * 1000:.0f} ms")
    return session


def median_ms(session, rows):
    took = []
    for _ in range(RUNS):
        start = time.perf_counter()
        session.run(None, {"x": rows})
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)


def check(session, width):
    """Assert that answers are finite, depend on the input, and not on the other rows."""
    rows = np.random.default_rng(SEED).random((4, width), np.float32)
    rows[1:] *= np.array([[0.1], [3], [10]], np.float32)
    (together,) = session.run(None, {"x": rows})
    alone = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
    assert np.isfinite(together).all()
    assert np.ptp(together, axis=0).max() > 1e-3, "all inputs get the same answer"
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)
    for n in (1, 4):
        print(f"  {n} row(s), one thread: {median_ms(session, rows[:n]):.1f} ms (median of {RUNS})")


def main():
    check(write("ten_ms.onnx", ten_ms()), PIXELS)
    check(write("wide.onnx", wide()), WIDTH)
    onnx_model, classifier, rows = forest()
    session = write("forest.onnx", onnx_model)
    names = [output.name for output in session.get_outputs()]
    label, probabilities = session.run(names, {"x": rows})
    np.testing.assert_array_equal(label, classifier.predict(rows))
    np.testing.assert_allclose(probabilities, classifier.predict_proba(rows), atol=1e-5)
    print(f"  1 row, one thread: {median_ms(session, rows[:1]):.3f} ms; outputs {names}")


if __name__ == "__main__":
    main()
