"""The smallest scoring script: it multiplies numbers by FACTOR."""

import json
import os


def init():
    """Runs once, before any request."""
    global factor
    factor = float(os.environ.get("FACTOR", "1"))


def run(data):
    """Runs for each request; data is the body as text."""
    return [factor * x for x in json.loads(data)["data"]]
