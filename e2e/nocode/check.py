"""Deploys models by naming their files and compares the answers with the frameworks' own: see nocode.sh."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODELS = os.path.join(ROOT, "engine", "python", "testdata", "models")
ZARPA = os.path.join(ROOT, "bin", "zarpa")

# One of each framework, and what is special about its deployment.
CHOSEN = [
    "sklearn-forest", "sklearn-table", "xgboost-ubj", "lightgbm-classes", "mlflow-columns", "keras-file",
    "savedmodel-texts", "torchscript-traced",
]
CONVERTED = ["sklearn-forest", "xgboost-ubj", "lightgbm-classes"]
DATATYPES = {
    "float64": "FP64", "float32": "FP32", "int64": "INT64", "int32": "INT32", "bool": "BOOL", "object": "BYTES",
    "uint8": "UINT8", "int8": "INT8", "int16": "INT16",
}


class Unavailable(RuntimeError):
    """This machine lacks something, such as a package index that answers."""


class Server:
    """A control plane with a data directory of its own and environments that stay."""

    def __init__(self):
        self.data = tempfile.mkdtemp(prefix="zarpa-nocode-")
        kept = os.path.join(ROOT, ".cache", "nocode", "environments")
        os.makedirs(kept, exist_ok=True)
        os.symlink(kept, os.path.join(self.data, "environments"))
        self.env = dict(os.environ, ZARPA_DATA=self.data, TF_CPP_MIN_LOG_LEVEL="3")
        self.log = open(os.path.join(self.data, "up.log"), "w")
        python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else "python3"
        self.up = subprocess.Popen(
            [ZARPA, "up", "--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--python", python],
            env=self.env, stdout=self.log, stderr=subprocess.STDOUT,
        )
        for _ in range(300):
            if os.path.exists(os.path.join(self.data, "server.json")):
                return
            time.sleep(0.1)
        raise SystemExit("zarpa up did not start; see " + self.log.name)

    def run(self, *args):
        """Runs a command and returns what it printed."""
        done = subprocess.run([ZARPA, *args], env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise (Unavailable if done.returncode == 11 else RuntimeError)("zarpa %s: exit %d\n%s" % (" ".join(args), done.returncode, done.stderr[-4000:]))
        return done.stdout

    def infer(self, name, inputs):
        """Asks an endpoint by the inference protocol, with its key, and returns the outputs by name."""
        report = json.loads(self.run("endpoint", "show", name, "-o", "json"))
        key = json.loads(self.run("keys", name, "-o", "json"))["primary"]
        body = {"inputs": [
            {"name": n, "datatype": DATATYPES[v["dtype"]], "shape": v["shape"], "data": v["data"]} for n, v in inputs.items()
        ]}
        request = urllib.request.Request(
            report["urls"]["infer"], json.dumps(body).encode(), {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return {o["name"]: o for o in json.load(answer)["outputs"]}

    def close(self):
        """Ends it with all that it started."""
        self.up.send_signal(signal.SIGINT)
        self.up.wait(90)
        self.log.close()
        os.unlink(os.path.join(self.data, "environments"))
        shutil.rmtree(self.data)


def rows_of(value):
    """The rows of a flat array."""
    size = math.prod(value["shape"][1:])
    return [value["data"][i : i + size] for i in range(0, size * value["shape"][0], size)]


def finite(expected):
    """The inputs and outputs of an expectation without the rows that JSON cannot carry."""
    if all(math.isfinite(x) for v in expected["inputs"].values() for x in v["data"] if isinstance(x, float)):
        return expected["inputs"], expected["outputs"]
    count = next(iter(expected["inputs"].values()))["shape"][0]
    keep = [
        i for i in range(count)
        if all(math.isfinite(x) for v in expected["inputs"].values() for x in rows_of(v)[i] if isinstance(x, float))
    ]

    def kept(values):
        return {
            n: dict(v, shape=[len(keep)] + v["shape"][1:], data=[x for i in keep for x in rows_of(v)[i]])
            for n, v in values.items()
        }

    return kept(expected["inputs"]), kept(expected["outputs"])


def same(got, want, tolerance):
    """Whether two flat lists are equal, numbers up to a share of themselves."""
    if len(got) != len(want):
        return False
    for a, b in zip(got, want):
        if isinstance(b, float) and not isinstance(a, str):
            if not math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance / 10):
                return False
        elif a != b:
            return False
    return True


def flat(value):
    """The elements of nested lists."""
    return [y for x in value for y in flat(x)] if isinstance(value, list) else [value]


def check(server, name):
    """Deploys one model and compares; returns how long both took."""
    with open(os.path.join(MODELS, name, "expected.json")) as file:
        expected = json.load(file)
    inputs, wanted = finite(expected)
    options = ["--system-packages"] if expected["format"] == "torchscript" else []
    began = time.monotonic()
    server.run("deploy", name, "--model", os.path.join(MODELS, name, "model"), "--workers", "1", *options)
    took = time.monotonic() - began
    outputs = server.infer(name, inputs)
    if sorted(outputs) != sorted(wanted):
        raise RuntimeError("outputs %s, want %s" % (sorted(outputs), sorted(wanted)))
    for output, want in wanted.items():
        if not same(flat(outputs[output]["data"]), flat(want["data"]), 1e-5):
            raise RuntimeError("%s: %s, want %s" % (output, flat(outputs[output]["data"])[:8], flat(want["data"])[:8]))
    return "deployed in %.1f s" % took


def fitting(got, want):
    """The elements of an output of ONNX that are the framework's output, or None where it is another one."""
    numbers = want["dtype"].startswith("float")
    if numbers != got["datatype"].startswith("FP"):
        return None
    data = flat(got["data"])
    if len(data) == len(want["data"]):
        return data
    if numbers and len(want["shape"]) == 1 and got["shape"] == want["shape"] + [2]:
        return data[1::2]  # the probability of the second class
    return None


def compare(outputs, name, want):
    """Wants one of the outputs of ONNX to be the framework's: labels equal, numbers within a ten-thousandth."""
    fits = [data for data in (fitting(got, want) for got in outputs.values()) if data is not None]
    if not fits:
        raise RuntimeError("%s %s: no such output in %s" % (name, want["shape"], {n: o["shape"] for n, o in outputs.items()}))
    for data in fits:
        if want["dtype"].startswith("float"):
            equal = all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-4) for a, b in zip(data, want["data"]))
        else:
            equal = data == want["data"]
        if equal:
            return
    raise RuntimeError("%s: %s in ONNX, want %s" % (name, fits[0][:8], want["data"][:8]))


def convert(server, name):
    """Converts a deployed model and compares the result, which runs without Python, with the framework's answers."""
    with open(os.path.join(MODELS, name, "expected.json")) as file:
        inputs, wanted = finite(json.load(file))
    done = json.loads(server.run("model", "convert", name, "--samples", "500", "-o", "json"))
    ref = "%s:%d" % (done["model"]["name"], done["model"]["version"])
    server.run("deploy", name + "-onnx", "--model", ref)
    (entry,) = done["model"]["signature"]["inputs"]
    (rows,) = inputs.values()
    outputs = server.infer(name + "-onnx", {entry["name"]: dict(rows, dtype="float32")})
    for output, want in wanted.items():
        compare(outputs, output, want)
    return "%s, differs by %.2g, %.3f ms before and %.3f ms after" % (
        done["converter"], done["max_difference"], done["before_ms"], done["after_ms"],
    )


def possible(name):
    """Why a model cannot be checked here, or None."""
    if name.startswith("torchscript"):
        if subprocess.run(["/usr/bin/python3", "-c", "import torch"], capture_output=True).returncode:
            return "/usr/bin/python3 has no torch: apt-get install python3-torch"
    return None


def main(names):
    """Checks what was named, or one of each framework."""
    failed = passed = 0
    server = Server()
    try:
        for name, action in [(n, check) for n in names or CHOSEN] + [(n, convert) for n in names or CONVERTED if n in CONVERTED]:
            why = possible(name)
            if why:
                print("skipped: %s: %s" % (name, why), flush=True)
                continue
            try:
                print("%-24s %-8s %s" % (name, action.__name__, action(server, name)), flush=True)
                passed += 1
            except Unavailable as lack:
                print("skipped: %s: %s: %s" % (name, action.__name__, lack), flush=True)
            except Exception as problem:  # the others are checked all the same
                failed += 1
                print("FAILED: %s: %s: %s" % (name, action.__name__, problem), flush=True)
        print(server.run("environment", "list"))
    finally:
        server.close()
    print("%d passed, %d failed" % (passed, failed))
    if failed:
        return 1
    return 0 if passed else 77


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
