"""An ordinary run() that looks for Flask's request by itself."""
import json

from flask import current_app, g, has_request_context, request


def init():
    global at_init
    at_init = has_request_context()


def run(data):
    g.mark = 1
    return {
        "at init": at_init,
        "data": data,
        "method": request.method,
        "custom": request.headers.get("X-Custom"),
        "args": request.args.to_dict(),
        "g": g.mark,
        "app": type(current_app._get_current_object()).__name__,
    }
