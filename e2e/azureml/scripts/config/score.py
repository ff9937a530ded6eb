"""Settings from config.json."""
import os


def init():
    pass


def run(data):
    return {"name": os.environ.get("SERVICE_NAME"), "timeout": os.environ.get("SCORING_TIMEOUT_MS")}
