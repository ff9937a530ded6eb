"""Brings a model into ONNX and lets both answer the same rows.

Run as ``python -m zarpa_worker.convert FORMAT DIR FILE OUT --samples N`` in an environment that has
the model's framework, its converter and onnxruntime. The last line of standard output is a JSON
object: what was found, or ``error`` with code, message, hint and traceback.

The process group ends with standard input, whose other end the server holds: a conversion does not
outlive it.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, Optional, Tuple

from zarpa_worker import formats
from zarpa_worker.errors import InvalidInput, LoadError
from zarpa_worker.nursery import end_group

# The share of labels that may differ: values on the edge of two classes, rounded to 32 bits.
LABELS_MAY_DIFFER = 1e-3
# How far numbers may be apart, as a share of the larger one or of 1.
NUMBERS_MAY_DIFFER = 1e-3
# Runs of one row whose median is the time.
TIMED_RUNS = 50
# Formats whose models take NaN for a missing value, and the shares of such rows and of NaN in them.
WITH_GAPS = ("xgboost", "lightgbm")
ROWS_WITH_GAPS = 0.25
GAPS = 0.3
SERVE_IT = "serve the model as it is"


def main(argv: List[str]) -> int:
    """Converts as the arguments say; the exit code is 0 or 3."""
    parser = argparse.ArgumentParser(prog="zarpa_worker.convert")
    parser.add_argument("format")
    parser.add_argument("dir")
    parser.add_argument("file")
    parser.add_argument("out")
    parser.add_argument("--samples", type=int, default=1000)
    args = parser.parse_args(argv)
    threading.Thread(target=end_with_input, daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what converters print is progress
    try:
        found = convert(args)
        code = 0
    except Exception as problem:  # every failure is told in the same form
        found, code = {"error": described(problem)}, 3
    print(json.dumps(found), file=answers, flush=True)
    return code


def end_with_input() -> None:
    """Waits for the end of standard input, which is the server's, and ends the process group."""
    while os.read(0, 4096):
        pass
    end_group()


def described(problem: Exception) -> Dict[str, str]:
    """A failure in the form of the worker's FAILED frame."""
    known = isinstance(problem, (InvalidInput, LoadError))
    message = getattr(problem, "message", None) or f"{type(problem).__name__}: {problem}"
    hint = getattr(problem, "hint", "") or "the converter does not know this model; serve it as it is"
    return {
        "code": "invalid" if known else "model_error",
        "message": message,
        "hint": hint,
        "traceback": traceback.format_exc(),
    }


def convert(args: argparse.Namespace) -> Dict[str, Any]:
    """Converts, compares, and returns what was found."""
    model = formats.load(args.format, args.dir, args.file)
    name, columns = matrix(model)
    print(f"converting {args.format} with {columns} features")
    onnx_model, converter = CONVERTERS[args.format](model, args, columns)
    with open(args.out, "wb") as file:
        file.write(onnx_model.SerializeToString())

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(args.out, options, providers=["CPUExecutionProvider"])
    rows = sample(args.samples, columns)
    if args.format in WITH_GAPS:
        rows = gaps(rows)
    entry = session.get_inputs()[0].name

    def before(x: Any) -> List[Tuple[str, Any]]:
        return model.run({name: x.astype("float64" if wide(model) else "float32")}, None)

    def after(x: Any) -> List[Tuple[str, Any]]:
        return list(zip([o.name for o in session.get_outputs()], session.run(None, {entry: x})))

    print(f"comparing {args.samples} rows")
    difference = compare(before(rows), after(rows))
    return {
        "converter": converter,
        "samples": args.samples,
        "max_difference": difference,
        "before_ms": timed(before, rows),
        "after_ms": timed(after, rows),
    }


def matrix(model: Any) -> Tuple[str, int]:
    """The name of the model's one input, which must be rows of numbers, and their length."""
    inputs = model.signature["inputs"]
    if len(inputs) != 1 or len(inputs[0]["shape"]) != 2 or inputs[0]["datatype"] == "BYTES":
        raise InvalidInput(
            "the model takes columns of several types, for which there is no converter",
            "serve it as it is",
        )
    if inputs[0]["shape"][1] < 1:
        raise InvalidInput("the model does not tell how many features it takes", "serve it as it is")
    return inputs[0]["name"], inputs[0]["shape"][1]


def wide(model: Any) -> bool:
    """Whether the model's input is of 64-bit numbers."""
    return model.signature["inputs"][0]["datatype"] == "FP64"


def sample(count: int, columns: int) -> Any:
    """Rows of numbers of several magnitudes, the same every time, exact in 32 bits."""
    import numpy

    rng = numpy.random.default_rng(0)
    parts = [
        rng.normal(0, 1, (count, columns)),
        rng.uniform(0, 10, (count, columns)),
        rng.normal(0, 100, (count, columns)),
    ]
    choice = rng.integers(0, len(parts), (count, 1))
    return numpy.choose(choice, parts).astype(numpy.float32)


def gaps(rows: Any) -> Any:
    """The same rows, some of them with missing values, the same ones every time."""
    import numpy

    rng = numpy.random.default_rng(1)
    missing = rng.random(rows.shape) < GAPS
    missing &= rng.random((len(rows), 1)) < ROWS_WITH_GAPS
    return numpy.where(missing, numpy.float32("nan"), rows)


def timed(run: Callable[[Any], Any], rows: Any) -> float:
    """The median time of one row, in milliseconds."""
    times = []
    for i in range(TIMED_RUNS):
        row = rows[i % len(rows)][None, :]
        began = time.perf_counter()
        run(row)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def compare(before: List[Tuple[str, Any]], after: List[Tuple[str, Any]]) -> float:
    """The largest difference of numbers, between each output of the model and one of ONNX that is
    no other's. A model is refused where an output has none, or where labels or numbers are too far
    apart; ONNX may have more outputs."""
    import numpy

    left = [numpy.asarray(got) for _, got in after]
    found = 0.0
    for name, want in before:
        want = numpy.asarray(want)
        pairs = [(i, fitting(got, want)) for i, got in enumerate(left)]
        judged = [(i, *judge(got, want)) for i, got in pairs if got is not None]
        if not judged:
            raise InvalidInput(f"{name}: the converted model has no such output", SERVE_IT)
        index, apart, why = min(judged, key=lambda one: (one[2] is not None, one[1]))
        if why is not None:
            raise InvalidInput(f"{name}: {why} after the conversion", SERVE_IT)
        del left[index]
        found = max(found, apart)
    return found


def judge(got: Any, want: Any) -> Tuple[float, Optional[str]]:
    """How far two outputs are apart, 0 for labels that are alike, and why that is too far, or None.

    A missing number is like a missing one alone, an infinite one like the same."""
    import numpy

    numbers = want.dtype.kind in "biuf" and got.dtype.kind in "biuf"
    if want.dtype.kind + got.dtype.kind != "ff":
        as_type = numpy.float64 if numbers else str
        unequal = float(numpy.mean(got.astype(as_type) != want.astype(as_type)))
        return 0.0, f"{unequal:.2%} of the labels differ" if unequal > LABELS_MAY_DIFFER else None
    got, want = got.astype(numpy.float64), want.astype(numpy.float64)
    if (numpy.isnan(got) != numpy.isnan(want)).any():
        return float("inf"), "numbers are missing, or not missing any more,"
    with numpy.errstate(invalid="ignore"):
        apart = numpy.where((got == want) | numpy.isnan(want), 0, numpy.abs(got - want))
        allowed = NUMBERS_MAY_DIFFER * numpy.maximum(1, numpy.abs(want))
    most = float(apart.max(initial=0))
    far = ~numpy.isfinite(apart) | (apart > allowed)
    return most, f"differs by up to {most:.3g}" if far.any() else None


def fitting(got: Any, want: Any) -> Any:
    """An output of ONNX in the shape of the framework's, or None for one that cannot be it."""
    if want.ndim == 0 or got.ndim == 0 or len(got) != len(want):
        return None
    if got.size == want.size:
        return got.reshape(want.shape)
    if want.ndim == 1 and want.dtype.kind == "f" and got.dtype.kind == "f" and got.shape[1:] == (2,):
        return got[:, 1]  # the probability of the second class
    return None


def from_sklearn(model: Any, args: argparse.Namespace, columns: int) -> Tuple[Any, str]:
    """A scikit-learn estimator, with probabilities as a matrix."""
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    from zarpa_worker.formats.estimator import unpickle

    estimator, _ = unpickle(os.path.join(args.dir, args.file))
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    types = [("input", FloatTensorType([None, columns]))]
    return skl2onnx.convert_sklearn(estimator, initial_types=types, options=options), version(skl2onnx)


def from_xgboost(_: Any, args: argparse.Namespace, columns: int) -> Tuple[Any, str]:
    """An XGBoost booster; its converter wants features without names."""
    import onnxmltools
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    booster = xgboost.Booster(model_file=os.path.join(args.dir, args.file))
    booster.feature_names = None
    types = [("input", FloatTensorType([None, columns]))]
    return onnxmltools.convert_xgboost(booster, initial_types=types), version(onnxmltools)


def from_lightgbm(_: Any, args: argparse.Namespace, columns: int) -> Tuple[Any, str]:
    """A LightGBM booster."""
    import lightgbm
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    booster = lightgbm.Booster(model_file=os.path.join(args.dir, args.file))
    types = [("input", FloatTensorType([None, columns]))]
    return onnxmltools.convert_lightgbm(booster, initial_types=types, zipmap=False), version(onnxmltools)


def version(package: Any) -> str:
    """A package's name and version."""
    return f"{package.__name__} {package.__version__}"


CONVERTERS = {"sklearn": from_sklearn, "xgboost": from_xgboost, "lightgbm": from_lightgbm}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
