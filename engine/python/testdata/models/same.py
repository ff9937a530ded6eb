"""Gives each input back, of every type that numpy has."""

TYPES = (
    "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 COMPLEX64 COMPLEX128 BYTES"
).split()

signature = {
    side: [{"name": t, "datatype": t, "shape": None, "optional": True} for t in TYPES]
    for side in ("inputs", "outputs")
}


def run(inputs, wanted):
    return list(inputs.items())
