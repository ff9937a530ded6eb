"""The variables of the scoring containers, and the config.json that may stand for some of them."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Mapping, NamedTuple

from .errors import LoadError

# The most characters of a value that an error repeats.
_SHOWN = 80


class Config(NamedTuple):
    """What the variables say. cors holds the origins that may call, "" for nothing said of them."""

    entry: str
    source_directory: str
    service_name: str
    service_version: str
    path_prefix: str
    model_directory: str
    timeout_ms: int
    cors: str


def read(environ: Mapping[str, str], code: str, entry: str) -> Config:
    """Read the settings: the environment counts before the file. entry is the script that the
    deployment names, "" where it leaves that to the variables.

    Errors: LoadError "contract" for a file that is no JSON object, or a timeout that is no number.
    """
    file = _file(environ, code, entry)

    def value(name: str, default: str) -> str:
        return environ[name] if name in environ else str(file.get(name, default))

    return Config(
        entry=entry or value("AZUREML_ENTRY_SCRIPT", ""),
        source_directory=value("AZUREML_SOURCE_DIRECTORY", ""),
        service_name=value("SERVICE_NAME", "ML service"),
        service_version=value("SERVICE_VERSION", "1.0"),
        path_prefix=value("SERVICE_PATH_PREFIX", ""),
        model_directory=value("AZUREML_MODEL_DIR", ""),
        timeout_ms=_milliseconds(value("SCORING_TIMEOUT_MS", "3600000")),
        cors=environ.get("AML_CORS_ORIGINS", ""),
    )


def _milliseconds(text: str) -> int:
    try:
        number = int(text.strip())
    except ValueError:
        number = -1
    if number < 0:
        raise LoadError(
            "contract",
            "SCORING_TIMEOUT_MS: %s is no whole number of milliseconds" % text[:_SHOWN],
            "write it as 30000, or 0 for no limit",
        )
    return number


def _file(environ: Mapping[str, str], code: str, entry: str) -> Dict[str, Any]:
    """The config.json: the one that AZUREML_CONFIG_FILE names, that of the code folder, or that
    beside the script. An empty file counts as none."""
    script = os.path.join(code, entry or environ.get("AZUREML_ENTRY_SCRIPT", ""))
    candidates: List[str] = [
        os.path.join(code, environ.get("AZUREML_CONFIG_FILE", "config.json")),
        os.path.join(code, "config.json"),
        os.path.join(os.path.dirname(script), "config.json"),
    ]
    for path in candidates:
        if os.path.isfile(path) and os.path.getsize(path) > 0:
            return _object(path)
    return {}


def _object(path: str) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as failure:
        raise LoadError(
            "contract",
            "%s: %s" % (os.path.basename(path), failure),
            "make it a JSON object of settings, or give a file of another purpose another name",
        ) from failure
    if not isinstance(content, dict):
        raise LoadError(
            "contract",
            "%s: it holds a JSON %s, not an object" % (os.path.basename(path), type(content).__name__),
            "make it a JSON object of settings, or give a file of another purpose another name",
        )
    return content
