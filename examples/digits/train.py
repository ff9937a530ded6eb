"""Train a small convolutional network on scikit-learn's 8x8 digits; export it to ONNX.

The network is written, trained and exported in JAX. Writes digits.onnx and
heldout.json beside this file. heldout.json holds JAX's own answers on images
the network never saw, so that whoever serves the model can prove that the
served answers are the trained ones.
"""

import json
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import optax
from jax2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = pathlib.Path(__file__).parent
SEED = 7
EPOCHS = 60
BATCH = 64
HELD_ROWS = 48  # rows of the test set that go into heldout.json
LEAST_ACCURACY = 0.97  # on the whole test set
TOLERANCE = 1e-5
OPSET = 21


def load():
    """Return train and test images (float32, [n,1,8,8], pixels 0 to 16) and labels."""
    data = load_digits()
    images = data.images.astype(np.float32)[:, None, :, :]
    return train_test_split(
        images, data.target, test_size=0.25, random_state=SEED, stratify=data.target
    )


def start(key):
    """Return untrained weights: two 3x3 convolutions, the second at stride 2, and a dense layer."""
    he = jax.nn.initializers.he_normal(in_axis=(1, 2, 3), out_axis=0)
    one, two, dense = jax.random.split(key, 3)
    return {
        "conv1": he(one, (8, 1, 3, 3), jnp.float32),
        "bias1": jnp.zeros((1, 8, 1, 1), jnp.float32),
        "conv2": he(two, (16, 8, 3, 3), jnp.float32),
        "bias2": jnp.zeros((1, 16, 1, 1), jnp.float32),
        "dense": jax.nn.initializers.glorot_normal()(dense, (256, 10), jnp.float32),
        "bias3": jnp.zeros((10,), jnp.float32),
    }


def logits(weights, image):
    """Return [batch,10] scores. The scaling of the pixels is part of the network."""

    def conv(x, kernel, stride):
        layout, pad = ("NCHW", "OIHW", "NCHW"), (1, 1)
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), (pad, pad), dimension_numbers=layout
        )

    x = image / 16.0
    x = jax.nn.relu(conv(x, weights["conv1"], 1) + weights["bias1"])
    x = jax.nn.relu(conv(x, weights["conv2"], 2) + weights["bias2"])
    return x.reshape(x.shape[0], -1) @ weights["dense"] + weights["bias3"]


def train(images, labels):
    """Return the weights after EPOCHS passes of Adam over shuffled mini-batches."""
    steps = len(images) // BATCH
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, EPOCHS * steps))

    @jax.jit
    def step(weights, state, x, y):
        def loss(w):
            return optax.softmax_cross_entropy_with_integer_labels(logits(w, x), y).mean()

        updates, state = optimizer.update(jax.grad(loss)(weights), state)
        return optax.apply_updates(weights, updates), state

    weights = start(jax.random.key(SEED))
    state = optimizer.init(weights)
    shuffle = np.random.default_rng(SEED)
    for _ in range(EPOCHS):
        order = shuffle.permutation(len(images))
        for at in range(0, steps * BATCH, BATCH):
            rows = order[at : at + BATCH]
            weights, state = step(weights, state, images[rows], labels[rows])
    return weights


def predictor(weights):
    """Return the function that is exported and whose answers are kept."""

    def predict(image):
        scores = logits(weights, image)
        return scores, jax.nn.softmax(scores), jax.lax.argmax(scores, 1, np.int64)

    return predict


def export(predict, path):
    """Write predict as ONNX with a free first dimension named "batch"."""
    model = to_onnx(
        predict,
        inputs=[("batch", 1, 8, 8)],
        input_names=["image"],
        output_names=["logits", "probabilities", "digit"],
        model_name="digits",
        opset=OPSET,
    )
    path.write_bytes(model.SerializeToString(deterministic=True))


def check(path, images, answers):
    """Assert that ONNX Runtime answers as JAX does."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    got = session.run(["logits", "probabilities", "digit"], {"image": images})
    for mine, theirs in zip(got[:2], answers[:2], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_array_equal(got[2], answers[2])
    assert got[2].dtype == np.int64, f"digit is {got[2].dtype}, not int64"


def main():
    fit_images, test_images, fit_labels, test_labels = load()
    predict = predictor(train(fit_images, fit_labels))
    path = HERE / "digits.onnx"
    with jax.enable_x64(True):  # for the int64 of digit alone; the weights stay float32
        answers = [np.asarray(a) for a in jax.jit(predict)(test_images)]
        export(predict, path)

    accuracy = float((answers[2] == test_labels).mean())
    print(f"accuracy on {len(test_images)} test images: {accuracy:.4f}")
    assert accuracy >= LEAST_ACCURACY, f"accuracy {accuracy} is below {LEAST_ACCURACY}"
    check(path, test_images, answers)

    held = {
        "inputs": test_images[:HELD_ROWS].tolist(),
        "digit": answers[2][:HELD_ROWS].tolist(),
        "probabilities": answers[1][:HELD_ROWS].tolist(),
    }
    (HERE / "heldout.json").write_text(json.dumps(held) + "\n")
    print(f"wrote {path.name} ({path.stat().st_size} bytes); ONNX Runtime agrees within {TOLERANCE}")


if __name__ == "__main__":
    main()
