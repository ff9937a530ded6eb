"""tritonclient, over HTTP and gRPC."""

import queue

import numpy
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from check import check, equal, refused
from target import HALF, TYPES
from tritonclient.utils import InferenceServerException

A = numpy.array([[1, 2], [3, 4]], numpy.float32)
B = numpy.array([[10, 20], [30, 40]], numpy.float32)


def http(target):
    return tritonclient.http.InferenceServerClient(target.rest)


def grpc(target):
    return tritonclient.grpc.InferenceServerClient(target.grpc)


def tensor(module, name, datatype, value, **how):
    t = module.InferInput(name, list(value.shape), datatype)
    t.set_data_from_numpy(value, **how)
    return t


def add(module, **how):
    return [tensor(module, "a", "FP32", A, **how), tensor(module, "b", "FP32", B, **how)]


def wanted(module, name, **how):
    return [module.InferRequestedOutput(name, **how)]


# -- HTTP -------------------------------------------------------------------------


@check
def http_health(target):
    with http(target) as c:
        assert c.is_server_live(headers=target.headers)
        assert c.is_server_ready(headers=target.headers)
        assert c.is_model_ready("add", headers=target.headers)
        assert not c.is_model_ready("no_such_model", headers=target.headers)


@check
def http_metadata(target):
    with http(target) as c:
        server = c.get_server_metadata(headers=target.headers)
        assert "binary_tensor_data" in server["extensions"], server
        m = c.get_model_metadata("add", headers=target.headers)
        equal([(i["name"], i["datatype"], i["shape"]) for i in m["inputs"]], [("a", "FP32", [-1, 2]), ("b", "FP32", [-1, 2])])
        v = c.get_model_metadata("add", m["versions"][0], headers=target.headers)
        equal(v, m)
        return f"{server['name']} {server['version']}"


@check
def http_config(target):
    with http(target) as c:
        config = c.get_model_config("add", headers=target.headers)
        equal(config["name"], "add")
        equal([i["data_type"] for i in config["input"]], ["TYPE_FP32", "TYPE_FP32"])


@check
def http_repository_index(target):
    with http(target) as c:
        index = c.get_model_repository_index(headers=target.headers)
        names = {m["name"] for m in index}
        assert set(TYPES) | {"add"} <= names, names


@check
def http_every_datatype(target):
    """Every datatype, in and out, as binary tensors and as JSON in all four pairs."""
    n = 0
    with http(target) as c:
        for model, (datatype, value) in TYPES.items():
            for sent in (True, False):
                for got in (True, False):
                    if datatype in HALF and not (sent and got):
                        continue
                    if datatype == "BF16" and not got:
                        continue
                    i = [tensor(tritonclient.http, "x", datatype, value, binary_data=sent)]
                    o = wanted(tritonclient.http, "y", binary_data=got)
                    r = c.infer(model, i, outputs=o, headers=target.headers).as_numpy("y")
                    if value.dtype == object and r.size and isinstance(r.flat[0], str):
                        r = numpy.array([s.encode() for s in r.flat], object).reshape(r.shape)
                    equal(r, value)
                    n += 1
    return f"{n} answers"


@check
def http_add(target):
    with http(target) as c:
        r = c.infer("add", add(tritonclient.http), request_id="42", headers=target.headers)
        equal(r.as_numpy("sum"), A + B)
        equal(r.get_response()["id"], "42")
        equal(r.get_response()["model_name"], "add")


@check
def http_mixed_inputs(target):
    """One input as JSON, one as bytes."""
    with http(target) as c:
        i = [tensor(tritonclient.http, "a", "FP32", A, binary_data=False), tensor(tritonclient.http, "b", "FP32", B)]
        equal(c.infer("add", i, headers=target.headers).as_numpy("sum"), A + B)


@check
def http_compression(target):
    with http(target) as c:
        for sent in (None, "gzip", "deflate"):
            for got in (None, "gzip", "deflate"):
                r = c.infer(
                    "add", add(tritonclient.http), headers=target.headers, request_compression_algorithm=sent, response_compression_algorithm=got
                )
                equal(r.as_numpy("sum"), A + B)


@check
def http_large(target):
    """A megabyte each way."""
    value = numpy.arange(1 << 18, dtype=numpy.float32)
    with http(target) as c:
        r = c.infer("identity_float", [tensor(tritonclient.http, "x", "FP32", value)], headers=target.headers)
        equal(r.as_numpy("y"), value)


@check
def http_empty(target):
    value = numpy.zeros([0], numpy.float32)
    with http(target) as c:
        r = c.infer("identity_float", [tensor(tritonclient.http, "x", "FP32", value)], headers=target.headers)
        equal(r.as_numpy("y"), value)


@check
def http_statistics(target):
    with http(target) as c:
        before = c.get_inference_statistics("add", headers=target.headers)["model_stats"][0]
        for _ in range(3):
            c.infer("add", add(tritonclient.http), headers=target.headers)
        after = c.get_inference_statistics("add", headers=target.headers)["model_stats"][0]
        rose = int(after["inference_stats"]["success"]["count"]) - int(before["inference_stats"]["success"]["count"])
        assert rose >= 3, f"success.count rose by {rose}"
        assert c.get_inference_statistics(headers=target.headers)["model_stats"]


@check
def http_errors(target):
    with http(target) as c:

        def infer(model, inputs, **how):
            return lambda: c.infer(model, inputs, headers=target.headers, **how)

        kind = {"kind": InferenceServerException}
        refused(infer("no_such_model", add(tritonclient.http)), "unknown model", **kind)
        refused(infer("add", add(tritonclient.http)[:1]), **kind)
        refused(infer("add", add(tritonclient.http), model_version="98765"), **kind)
        wide = numpy.zeros([2, 3], numpy.float32)
        refused(infer("add", [tensor(tritonclient.http, n, "FP32", wide) for n in "ab"]), "shape", **kind)
        whole = numpy.zeros([2, 2], numpy.int32)
        refused(infer("add", [tensor(tritonclient.http, n, "INT32", whole) for n in "ab"]), "INT32", **kind)
        refused(infer("add", add(tritonclient.http), outputs=wanted(tritonclient.http, "no_such_output")), **kind)
        equal(c.infer("add", add(tritonclient.http), headers=target.headers).as_numpy("sum"), A + B)


@check
def http_async_infer(target):
    """The synchronous client's own async_infer, many at a time."""
    with tritonclient.http.InferenceServerClient(target.rest, concurrency=8) as c:
        pending = [c.async_infer("add", add(tritonclient.http), headers=target.headers) for _ in range(32)]
        for p in pending:
            equal(p.get_result().as_numpy("sum"), A + B)


@check
async def http_aio(target):
    module = tritonclient.http.aio
    async with module.InferenceServerClient(target.rest) as c:
        assert await c.is_server_ready(headers=target.headers)
        assert (await c.get_model_metadata("add", headers=target.headers))["name"] == "add"
        assert await c.get_model_repository_index(headers=target.headers)
        for how in ({"binary_data": True}, {"binary_data": False}):
            r = await c.infer("add", add(module, **how), headers=target.headers)
            equal(r.as_numpy("sum"), A + B)
        try:
            await c.infer("no_such_model", add(module), headers=target.headers)
        except InferenceServerException as e:
            assert "unknown model" in str(e).lower(), e
        else:
            raise AssertionError("it was taken")


# -- gRPC -------------------------------------------------------------------------


@check
def grpc_health(target):
    with grpc(target) as c:
        assert c.is_server_live(headers=target.metadata)
        assert c.is_server_ready(headers=target.metadata)
        assert c.is_model_ready("add", headers=target.metadata)


@check
def grpc_metadata(target):
    with grpc(target) as c:
        extensions = list(c.get_server_metadata(headers=target.metadata).extensions)
        assert "binary_tensor_data" in extensions, extensions
        m = c.get_model_metadata("add", headers=target.metadata)
        equal([(i.name, i.datatype, list(i.shape)) for i in m.inputs], [("a", "FP32", [-1, 2]), ("b", "FP32", [-1, 2])])
        equal(c.get_model_config("add", headers=target.metadata).config.name, "add")
        names = {m.name for m in c.get_model_repository_index(headers=target.metadata).models}
        assert set(TYPES) | {"add"} <= names, names


@check
def grpc_every_datatype(target):
    with grpc(target) as c:
        for model, (datatype, value) in TYPES.items():
            i = [tensor(tritonclient.grpc, "x", datatype, value)]
            r = c.infer(model, i, outputs=wanted(tritonclient.grpc, "y"), headers=target.metadata).as_numpy("y")
            equal(r, value)
    return f"{len(TYPES)} answers"


@check
def grpc_add(target):
    with grpc(target) as c:
        r = c.infer("add", add(tritonclient.grpc), request_id="42", headers=target.metadata, client_timeout=10)
        equal(r.as_numpy("sum"), A + B)
        equal(r.get_response().id, "42")
        for how in ("gzip", "deflate"):
            r = c.infer("add", add(tritonclient.grpc), headers=target.metadata, compression_algorithm=how)
            equal(r.as_numpy("sum"), A + B)


@check
def grpc_statistics(target):
    with grpc(target) as c:

        def count():
            return c.get_inference_statistics("add", headers=target.metadata).model_stats[0].inference_stats.success.count

        before = count()
        for _ in range(3):
            c.infer("add", add(tritonclient.grpc), headers=target.metadata)
        rose = count() - before
        assert rose >= 3, f"success.count rose by {rose}"


@check
def grpc_errors(target):
    with grpc(target) as c:

        def infer(model, inputs, **how):
            return lambda: c.infer(model, inputs, headers=target.metadata, **how)

        kind = {"kind": InferenceServerException}
        refused(infer("no_such_model", add(tritonclient.grpc)), "unknown model", **kind)
        refused(infer("add", add(tritonclient.grpc)[:1]), **kind)
        wide = numpy.zeros([2, 3], numpy.float32)
        refused(infer("add", [tensor(tritonclient.grpc, n, "FP32", wide) for n in "ab"]), "shape", **kind)
        whole = numpy.zeros([2, 2], numpy.int32)
        refused(infer("add", [tensor(tritonclient.grpc, n, "INT32", whole) for n in "ab"]), "INT32", **kind)
        equal(c.infer("add", add(tritonclient.grpc), headers=target.metadata).as_numpy("sum"), A + B)


@check
def grpc_async_infer(target):
    answers = queue.Queue()
    with grpc(target) as c:
        for _ in range(16):
            c.async_infer("add", add(tritonclient.grpc), callback=lambda result, error: answers.put((result, error)), headers=target.metadata)
        for _ in range(16):
            result, error = answers.get(timeout=10)
            assert error is None, error
            equal(result.as_numpy("sum"), A + B)


@check
def grpc_stream(target):
    """A stream of requests, one of them wrong: an answer to each, in their order."""
    answers = queue.Queue()
    with grpc(target) as c:
        c.start_stream(callback=lambda result, error: answers.put((result, error)), headers=target.metadata)
        for i in range(5):
            model = "no_such_model" if i == 2 else "add"
            c.async_stream_infer(model, add(tritonclient.grpc), request_id=str(i))
        got = [answers.get(timeout=10) for _ in range(5)]
        c.stop_stream()
    equal([error is not None for _, error in got], [False, False, True, False, False])
    equal([r.get_response().id for r, error in got if error is None], ["0", "1", "3", "4"])
    for r, error in got:
        if error is None:
            equal(r.as_numpy("sum"), A + B)


@check
async def grpc_aio(target):
    module = tritonclient.grpc.aio
    async with module.InferenceServerClient(target.grpc) as c:
        assert await c.is_model_ready("add", headers=target.metadata)
        r = await c.infer("add", add(module), headers=target.metadata)
        equal(r.as_numpy("sum"), A + B)

        async def requests():
            for i in range(3):
                yield {"model_name": "add", "inputs": add(module), "request_id": str(i)}

        ids = []
        async for result, error in c.stream_infer(requests(), headers=target.metadata):
            assert error is None, error
            ids.append(result.get_response().id)
        equal(ids, ["0", "1", "2"])
