"""Train a classifier on scikit-learn's iris data and export it to ONNX.

Writes iris.onnx and heldout.json beside this file. heldout.json holds
scikit-learn's own answers on the rows it never saw, so that whoever serves
the model can prove that the served answers are the trained ones.
"""

import json
import pathlib

import numpy as np
import onnxruntime
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = pathlib.Path(__file__).parent
SEED = 7
LEAST_ACCURACY = 0.94  # on the held-out rows
TOLERANCE = 1e-5  # the graph computes in float32, scikit-learn partly in float64
OPSETS = {"": 21, "ai.onnx.ml": 3}


def train():
    """Return the fitted pipeline and the held-out rows with their true labels."""
    data = load_iris()
    rows = data.data.astype(np.float32)
    fit_rows, held_rows, fit_labels, held_labels = train_test_split(
        rows, data.target, test_size=50, random_state=SEED, stratify=data.target
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(fit_rows, fit_labels)
    return model, held_rows, held_labels


def export(model):
    """Return the model as ONNX. ZipMap stays on: probabilities are one map per row."""
    onnx_model = convert_sklearn(
        model,
        name="iris",
        initial_types=[("input", FloatTensorType([None, 4]))],
        target_opset=OPSETS,
        options={"zipmap": True},
        doc_string="Iris species from sepal length, sepal width, petal length, petal width (cm).",
    )
    graph = onnx_model.graph
    rename(graph, {"output_label": "label", "output_probability": "probabilities"})
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx_model.opset_import.sort(key=lambda opset: opset.domain)  # else their order is by chance
    return onnx_model


def rename(graph, names):
    """Give the graph's outputs, which skl2onnx names after itself, their public names."""
    names = {new: "inner_" + new for new in names.values()} | names
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in graph.output:
        value.name = names[value.name]


def check(path, rows, label, probabilities):
    """Assert that ONNX Runtime answers as scikit-learn does."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    got_label, got_maps = session.run(["label", "probabilities"], {"input": rows})
    got = np.array([[row[k] for k in sorted(row)] for row in got_maps])
    np.testing.assert_array_equal(got_label, label)
    np.testing.assert_allclose(got, probabilities, rtol=0, atol=TOLERANCE)


def main():
    model, rows, truth = train()
    label, probabilities = model.predict(rows), model.predict_proba(rows)
    accuracy = float((label == truth).mean())
    print(f"accuracy on {len(rows)} held-out rows: {accuracy:.4f}")
    assert accuracy >= LEAST_ACCURACY, f"accuracy {accuracy} is below {LEAST_ACCURACY}"

    path = HERE / "iris.onnx"
    path.write_bytes(export(model).SerializeToString(deterministic=True))
    check(path, rows, label, probabilities)
    held = {
        "inputs": rows.tolist(),
        "label": label.tolist(),
        "probabilities": probabilities.tolist(),
    }
    (HERE / "heldout.json").write_text(json.dumps(held) + "\n")
    print(f"wrote {path.name} ({path.stat().st_size} bytes); ONNX Runtime agrees within {TOLERANCE}")


if __name__ == "__main__":
    main()
