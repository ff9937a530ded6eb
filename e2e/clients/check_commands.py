"""curl and grpcurl, as they are written in a shell."""

import base64
import json
import os
import subprocess

from check import check, equal

GRPCURL = os.environ.get("GRPCURL", "grpcurl")
SERVICE = "inference.GRPCInferenceService"
ADD = {"inputs": [{"name": n, "datatype": "FP32", "shape": [1, 2], "data": [[1, 2]]} for n in "ab"]}


def out(*command, data=None):
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr.decode()} {done.stdout.decode()}"
    return done.stdout


def curl(target, path, *how, data=None):
    headers = [x for k, v in target.headers.items() for x in ("-H", f"{k}: {v}")]
    return out("curl", "-sS", "--fail-with-body", *headers, *how, f"http://{target.rest}{path}", data=data)


def grpcurl(target, method, message=None):
    headers = [x for k, v in target.metadata.items() for x in ("-H", f"{k}: {v}")]  # for reflection, too
    text = out(GRPCURL, "-plaintext", *headers, "-d", json.dumps(message or {}), target.grpc, f"{SERVICE}/{method}")
    return json.loads(text or "{}")


@check
def curl_infer(target):
    """curl -d sends its own Content-Type."""
    r = json.loads(curl(target, "/v2/models/add/infer", "-d", json.dumps(ADD)))
    equal(r["outputs"][0]["data"], [2, 4])


@check
def curl_stdin_chunked(target):
    r = json.loads(curl(target, "/v2/models/add/infer", "-H", "Transfer-Encoding: chunked", "-T", "-", "-X", "POST", data=json.dumps(ADD).encode()))
    equal(r["outputs"][0]["data"], [2, 4])


@check
def curl_expect(target):
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP64", "shape": [50000], "data": [0.5] * 50000}]})
    r = json.loads(curl(target, "/v2/models/identity_double/infer", "-H", "Expect: 100-continue", "--data-binary", "@-", data=body.encode()))
    equal(len(r["outputs"][0]["data"]), 50000)


@check
def curl_raw_binary(target):
    r = curl(
        target, "/v2/models/identity_uint8/infer", "-H", "Inference-Header-Content-Length: 0", "-H", "Content-Type: application/octet-stream",
        "--data-binary", "@-", data=b"\x01\x02\xff",
    )
    assert r.endswith(b"\x01\x02\xff"), r


@check
def curl_compressed(target):
    r = json.loads(curl(target, "/v2/models/add/infer", "--compressed", "-d", json.dumps(ADD)))
    equal(r["outputs"][0]["data"], [2, 4])


@check
def curl_index(target):
    assert any(m["name"] == "add" for m in json.loads(curl(target, "/v2/repository/index", "-X", "POST")))


@check
def grpcurl_list(target):
    """Server reflection tells the service and its methods."""
    headers = [x for k, v in target.metadata.items() for x in ("-H", f"{k}: {v}")]
    services = out(GRPCURL, "-plaintext", *headers, target.grpc, "list").decode().split()
    assert SERVICE in services, services
    methods = out(GRPCURL, "-plaintext", *headers, target.grpc, "list", SERVICE).decode().split()
    assert f"{SERVICE}.ModelInfer" in methods, methods


@check
def grpcurl_health(target):
    equal(grpcurl(target, "ServerLive")["live"], True)
    equal(grpcurl(target, "ModelReady", {"name": "add"})["ready"], True)


@check
def grpcurl_infer(target):
    """Typed contents, as a person writes them; the answer is raw."""
    inputs = [{"name": n, "datatype": "FP32", "shape": [1, 2], "contents": {"fp32_contents": [1, 2]}} for n in "ab"]
    r = grpcurl(target, "ModelInfer", {"model_name": "add", "inputs": inputs})
    equal(base64.b64decode(r["rawOutputContents"][0]), bytes.fromhex("0000004000008040"))
