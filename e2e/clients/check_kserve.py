"""The kserve SDK's inference clients, over REST and gRPC."""

import grpc
import httpx
import numpy
from check import check, equal
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from target import HALF, TYPES


def request(model, datatype, value, *, binary, parameters=None):
    i = InferInput("x", list(value.shape), datatype)
    i.set_data_from_numpy(value, binary_data=binary)
    outputs = [RequestedOutput("y", {"binary_data": True})] if binary else None
    return InferRequest(model, [i], request_id="42", parameters=parameters, request_outputs=outputs)


@check
async def rest_health(target):
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as c:
        url = "http://" + target.rest
        assert await c.is_server_live(url, headers=target.headers)
        assert await c.is_server_ready(url, headers=target.headers)
        assert await c.is_model_ready(url, "add", headers=target.headers)


@check
async def rest_infer(target):
    """Every datatype that the SDK has, as JSON and as binary tensors."""
    n = 0
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as c:
        for model, (datatype, value) in TYPES.items():
            for binary in (True, False):
                if datatype == "BF16" or datatype in HALF and not binary or datatype == "BYTES":
                    continue
                r = await c.infer("http://" + target.rest, request(model, datatype, value, binary=binary), model_name=model, headers=target.headers)
                equal(r.id, "42")
                equal(r.outputs[0].as_numpy(), value)
                n += 1
    return f"{n} answers"


@check
async def rest_bytes(target):
    value = numpy.array([b"a", b"zarpa"], object)
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as c:
        q = request("identity_string", "BYTES", value, binary=True)
        r = await c.infer("http://" + target.rest, q, model_name="identity_string", headers=target.headers)
        equal([s if isinstance(s, bytes) else s.encode() for s in r.outputs[0].as_numpy().tolist()], value.tolist())


@check
async def rest_error(target):
    _, value = TYPES["identity_float"]
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as c:
        try:
            q = request("no_such_model", "FP32", value, binary=False)
            await c.infer("http://" + target.rest, q, model_name="no_such_model", headers=target.headers)
        except httpx.HTTPStatusError as e:
            equal(e.response.status_code, 404)
            assert "unknown model" in str(e).lower(), e
        else:
            raise AssertionError("it was taken")


@check
async def grpc_infer(target):
    n = 0
    metadata = tuple(target.metadata.items())
    async with InferenceGRPCClient(target.grpc) as c:
        assert await c.is_server_live(headers=metadata)
        assert await c.is_server_ready(headers=metadata)
        assert await c.is_model_ready("add", headers=metadata)
        for model, (datatype, value) in TYPES.items():
            for binary in (True, False):
                if datatype == "BF16" or datatype in HALF and not binary or datatype == "BYTES":
                    continue
                r = await c.infer(request(model, datatype, value, binary=binary), headers=metadata)
                equal(r.id, "42")
                equal(r.outputs[0].as_numpy(), value)
                n += 1
    return f"{n} answers"


@check
async def grpc_error(target):
    _, value = TYPES["identity_float"]
    async with InferenceGRPCClient(target.grpc) as c:
        try:
            await c.infer(request("no_such_model", "FP32", value, binary=True), headers=tuple(target.metadata.items()))
        except grpc.RpcError as e:
            equal(e.code(), grpc.StatusCode.NOT_FOUND)
        else:
            raise AssertionError("it was taken")
