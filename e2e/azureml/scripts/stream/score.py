"""Answers in parts."""
import json

from azureml.contrib.services.aml_response import AMLResponse
from flask import Response, stream_with_context


def parts(count, fail=-1):
    for i in range(count):
        if i == fail:
            raise RuntimeError("part %d" % i)
        yield "part %d\n" % i


def init():
    pass


def run(data):
    wanted = json.loads(data)
    kind = wanted["kind"]
    if kind == "flask":
        return Response(parts(3), mimetype="text/plain")
    if kind == "aml":
        return AMLResponse(parts(2), 200, {"Content-Type": "text/event-stream"})
    if kind == "bytes":
        return Response((bytes([65 + i]) * 10000 for i in range(20)), mimetype="application/octet-stream", headers={"X-Parts": "20"})
    if kind == "context":
        return Response(stream_with_context(parts(2)), mimetype="text/plain")
    if kind == "empty":
        return Response((p for p in ()), mimetype="text/plain")
    if kind == "blank":
        return Response((p for p in ("", "a", "", "b")), mimetype="text/plain")
    if kind == "first":
        return Response(parts(3, fail=0), mimetype="text/plain")
    if kind == "middle":
        return Response(parts(3, fail=1), mimetype="text/plain")
    return None
