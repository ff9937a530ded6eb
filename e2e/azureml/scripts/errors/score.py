"""Raises what its input names."""
import json
import socket
import sys
import time


class Odd(BaseException):
    pass


def init():
    pass


def run(data):
    kind = json.loads(data)["kind"]
    if kind == "exception":
        raise ValueError("secret")
    if kind == "timeout":
        raise socket.timeout("a database did not answer")
    if kind == "exit":
        sys.exit(0)
    if kind == "base":
        raise Odd()
    if kind == "recursion":
        return run(data)
    if kind == "memory":
        raise MemoryError()
    if kind == "sleep":
        time.sleep(30)
    if kind == "spin":
        while True:
            pass
    if kind == "swallow":
        try:
            time.sleep(30)
        except Exception as failure:
            return "swallowed " + type(failure).__name__
    return kind
