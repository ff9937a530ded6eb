"""Keras models, and what TensorFlow exports."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List

import keras
import numpy as np
import tensorflow as tf

from . import Case

ROWS = np.random.RandomState(3).rand(6, 4).astype(np.float32)
WORDS = np.array([[1, 2, 3], [3, 2, 9]], dtype=np.int64)


def network() -> Any:
    """One input and one output."""
    keras.utils.set_random_seed(1)
    x = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(5, activation="relu")(x)
    return keras.Model(x, keras.layers.Dense(3, activation="softmax", name="classes")(hidden))


def double() -> Any:
    """Two inputs, one of them whole numbers, and two outputs."""
    keras.utils.set_random_seed(2)
    x, words = keras.Input((4,), name="x"), keras.Input((3,), dtype="int64", name="words")
    both = keras.layers.Concatenate()(
        [x, keras.layers.Flatten()(keras.layers.Embedding(10, 2)(words))]
    )
    return keras.Model(
        [x, words],
        [keras.layers.Dense(2, name="left")(both), keras.layers.Dense(1, name="right")(both)],
    )


def with_keras(name: str, file: str, make: Callable[[], Any], inputs: Dict[str, Any]) -> Case:
    """A model in one file."""

    def reference(folder: str, values: Dict[str, Any]) -> Dict[str, Any]:
        model = keras.models.load_model(os.path.join(folder, file))
        given = model.predict(list(values.values()) if len(values) > 1 else values["x"], verbose=0)
        return dict(zip(model.output_names, given if isinstance(given, list) else [given]))

    return Case(
        name,
        "keras",
        file,
        inputs,
        lambda folder: make().save(os.path.join(folder, file)),
        reference,
    )


def exported() -> Case:
    """What model.export writes for servers."""

    def reference(folder: str, values: Dict[str, Any]) -> Dict[str, Any]:
        loaded = tf.saved_model.load(folder)
        given = loaded.signatures["serving_default"](x=tf.constant(values["x"]))
        return {n: v.numpy() for n, v in given.items()}

    return Case(
        "savedmodel-keras",
        "savedmodel",
        "",
        {"x": ROWS},
        lambda folder: network().export(folder, verbose=False),
        reference,
    )


class Texts(tf.Module):
    """Texts in and out."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, "words"),
            tf.TensorSpec([], tf.int32, "times"),
        ]
    )
    def serve(self, words: Any, times: Any) -> Dict[str, Any]:
        return {"upper": tf.strings.upper(words), "length": tf.strings.length(words) * times}


def texts() -> Case:
    """A signature of another name than the usual one."""
    inputs = {"times": np.int32(3), "words": np.array(["one", "three"], dtype=object)}

    def train(folder: str) -> None:
        module = Texts()
        tf.saved_model.save(module, folder, signatures={"shout": module.serve})

    def reference(folder: str, values: Dict[str, Any]) -> Dict[str, Any]:
        loaded = tf.saved_model.load(folder)
        given = loaded.signatures["shout"](**{n: tf.constant(v) for n, v in values.items()})
        return {
            "length": given["length"].numpy(),
            "upper": np.array([u.decode() for u in given["upper"].numpy()], dtype=object),
        }

    return Case("savedmodel-texts", "savedmodel", "", inputs, train, reference)


def cases() -> List[Case]:
    """All cases."""
    return [
        with_keras("keras-file", "model.keras", network, {"x": ROWS}),
        with_keras("keras-hdf5", "model.h5", network, {"x": ROWS}),
        with_keras("keras-double", "model.keras", double, {"x": ROWS[:2], "words": WORDS}),
        exported(),
        texts(),
    ]
