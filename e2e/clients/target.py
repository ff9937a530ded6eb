"""The server that the clients talk to, and the models that it has."""

import dataclasses

import ml_dtypes
import numpy

TYPES = {
    "identity_bool": ("BOOL", numpy.array([True, False, True])),
    "identity_uint8": ("UINT8", numpy.array([0, 1, 255], numpy.uint8)),
    "identity_uint16": ("UINT16", numpy.array([0, 1, 65535], numpy.uint16)),
    "identity_uint32": ("UINT32", numpy.array([0, 1, 2**32 - 1], numpy.uint32)),
    "identity_uint64": ("UINT64", numpy.array([0, 1, 2**64 - 1], numpy.uint64)),
    "identity_int8": ("INT8", numpy.array([-128, 0, 127], numpy.int8)),
    "identity_int16": ("INT16", numpy.array([-(2**15), 0, 2**15 - 1], numpy.int16)),
    "identity_int32": ("INT32", numpy.array([-(2**31), 0, 2**31 - 1], numpy.int32)),
    "identity_int64": ("INT64", numpy.array([-(2**63), 0, 2**63 - 1], numpy.int64)),
    "identity_float16": ("FP16", numpy.array([0.5, -2, 65504], numpy.float16)),
    "identity_bfloat16": ("BF16", numpy.array([0.5, -2, 3], ml_dtypes.bfloat16)),
    "identity_float": ("FP32", numpy.array([0.1, -0.0, 3.4028235e38], numpy.float32)),
    "identity_double": ("FP64", numpy.array([0.1, -0.0, 1.7976931348623157e308])),
    "identity_string": ("BYTES", numpy.array(["".encode(), "zarpa".encode(), "ñ ☃".encode()], object)),
}
HALF = ("FP16", "BF16")


@dataclasses.dataclass
class Target:
    """Where REST and gRPC are, and the headers that every request needs."""

    rest: str  # HOST:PORT, with a path before /v2 behind it
    grpc: str  # HOST:PORT
    given: dict

    @property
    def headers(self):
        return dict(self.given)  # a new one each time: tritonclient writes into it

    @property
    def metadata(self):
        return {k.lower(): v for k, v in self.given.items()}
