"""The headers of the request beside its text."""
import json


def init():
    pass


def run(data, request_headers):
    kept = ("Content-Type", "Content-Length", "User-Agent", "X-Custom", "X-Twice", "Traceid", "X-Ms-Client-Request-Id", "Accept", "X-Latin")
    return {"type": type(request_headers).__name__, "data": data, "headers": {k: request_headers[k] for k in kept if k in request_headers}}
