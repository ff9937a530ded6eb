"""Ask ONNX Runtime about every entry of the zoo, and write down what it says."""

import dataclasses
import multiprocessing
import re
import threading
import time

import numpy as np
import onnxruntime as ort

EXPECTATIONS = ("runs", "refused", "fails", "crashes", "stops when told")
HEADING = "## The models\n\n"  # of README.md: what follows is written by check
STOP_AFTER = 0.3  # seconds a slow run is given before it is told to stop
STOP_WITHIN = 1.0  # seconds it may take to obey
LONGEST = 230  # characters of one answer in the table


@dataclasses.dataclass
class Output:
    """The first output of another entry, as an input: for types Python cannot write."""

    path: str
    feed: dict


def raw(array, element_type):
    """Return array's bytes as a tensor of a type numpy has not."""
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, element_type)


def check(folder, entries):
    """Assert what each entry expects and write the table of README.md."""
    lines = []
    for entry in entries:
        assert entry.expect in EXPECTATIONS, entry
        signature, said = ask(folder, entry)
        cells = (f"`{entry.path}`", entry.purpose, signature, "<br>".join(said))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    readme = folder / "README.md"
    head = readme.read_text().partition(HEADING)[0]
    table = "| file | what it is for | inputs → outputs | what ONNX Runtime answers |\n"
    table += "|---|---|---|---|\n"
    readme.write_text(head + HEADING + table + "\n".join(lines) + "\n")
    print(f"{len(entries)} models asked of ONNX Runtime {ort.__version__}, all as expected")


def ask(folder, entry):
    """Return the signature and one answer per run; assert that they are as expected."""
    try:
        session = load(folder, entry.path)
    except Exception as error:
        assert entry.expect == "refused", f"{entry.path}: {error}"
        return "", ["refused at load: " + shorten(error)]
    assert entry.expect != "refused", f"{entry.path} loads"
    said = []
    for at, feed in enumerate(entry.feeds):
        expect = entry.expect if at == len(entry.feeds) - 1 else "runs"
        if expect == "crashes":
            said.append(crash(folder, entry.path, feed))
        elif expect == "stops when told":
            said.append(stop(session, feed))
        else:
            said.append(run(folder, session, feed, expect == "fails"))
    return signature(session), said


def load(folder, path):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(folder / path, options, providers=["CPUExecutionProvider"])


def run(folder, session, feed, must_fail):
    feed = {k: resolve(folder, v) for k, v in feed.items()}
    said = shown_feed(feed)
    try:
        if exotic(session):
            outputs = session.run_with_ort_values(None, values(feed))
        else:
            outputs = session.run(None, feed)
    except Exception as error:
        assert must_fail, f"{feed}: {error}"
        return f"{said} → error: {shorten(error)}"
    assert not must_fail, f"{feed} did not fail"
    return f"{said} → {', '.join(shown(output) for output in outputs)}"


def exotic(session):
    """Report whether an input or output is of a type that numpy has not."""
    ends = [*session.get_inputs(), *session.get_outputs()]
    return any(exotic_type(end.type) for end in ends)


def exotic_type(name):
    return re.search(r"bfloat|float8|int[24]\b", name) is not None


def values(feed):
    """Return feed with its arrays as ONNX Runtime's own values."""
    own = ort.OrtValue.ortvalue_from_numpy
    return {k: v if isinstance(v, ort.OrtValue) else own(v) for k, v in feed.items()}


def resolve(folder, given):
    if not isinstance(given, Output):
        return given
    return load(folder, given.path).run_with_ort_values(None, values(given.feed))[0]


def stop(session, feed):
    """Start a run that would take hours, end it from another thread, and time that."""
    options = ort.RunOptions()
    told = threading.Timer(STOP_AFTER, lambda: setattr(options, "terminate", True))
    start = time.monotonic()
    told.start()
    try:
        session.run(None, feed, options)
    except Exception as error:
        assert time.monotonic() - start < STOP_AFTER + STOP_WITHIN, "did not stop in time"
        return f"{shown_feed(feed)}, then terminate → error: {shorten(error)}"
    raise AssertionError(f"{feed} came to an end")


def crash(folder, path, feed):
    """Run in a process of its own and return the signal that ended it."""
    child = multiprocessing.get_context("spawn").Process(
        target=run_and_exit, args=(folder, path, feed)
    )
    child.start()
    child.join()
    assert child.exitcode == -8, f"{path}: exit code {child.exitcode}, not SIGFPE"
    return f"{shown_feed(feed)} → the process dies of SIGFPE"


def run_and_exit(folder, path, feed):
    load(folder, path).run(None, feed)


def signature(session):
    def side(ends):
        return ", ".join(f"`{end.name}` {kind(end)}" for end in ends)

    return f"{side(session.get_inputs())} → {side(session.get_outputs())}"


def kind(end):
    plain = re.fullmatch(r"tensor\((\w+)\)", end.type)
    if not plain:
        return end.type
    return plain[1] + "[" + ",".join("?" if d is None else str(d) for d in end.shape) + "]"


def shown_feed(feed):
    return ", ".join(f"{name} = {shown(given)}" for name, given in feed.items())


def shown(given):
    """Return a value as short text: small ones in full, others by their shape."""
    if isinstance(given, ort.OrtValue):
        if exotic_type(given.data_type()):
            return f"shape {given.shape()}"
        given = given.numpy()
    if isinstance(given, list):
        return "[" + ", ".join(shown(item) for item in given) + "]"
    if not isinstance(given, (np.ndarray, np.generic)):
        return str(given)
    if given.size == 0 or given.ndim > 4:
        return f"shape {list(given.shape)}"
    return str(given.tolist())


def shorten(error):
    """Return ONNX Runtime's message without the places in its source and on this disk."""
    message = " ".join(str(error).split())
    message = re.sub(r"/onnxruntime_src/\S+:\d+ (.*\) )?", "", message)
    message = re.sub(r"Load model from \S+ failed:", "", message)
    message = re.sub(r"(?<![\w.])/(?!etc/passwd)[^\s\"]*/([^\s\"/]+)", r"\1", message)
    message = message.replace("[ONNXRuntimeError] : ", "")
    return message if len(message) <= LONGEST else message[:LONGEST] + " …"
