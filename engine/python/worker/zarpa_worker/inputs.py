"""Requests: what run() gets of them, in each of its forms."""

from __future__ import annotations

import codecs
import inspect
import json
from typing import Any, Dict, List, Tuple
from urllib.parse import parse_qsl

from .reply import JSON_HEADERS, Refusal, Reply, error, refuse

# What may be asked of /score at all; the rest is refused before the script's form counts.
_ROUTED = frozenset(("GET", "HEAD", "OPTIONS", "POST"))
_NOT_ROUTED = "The method is not allowed for the requested URL."

# The empty answer to OPTIONS of a script that does not see requests itself.
_OPTIONS = Reply(200, [("Content-Type", "text/html; charset=utf-8")], b"", False, None)


def check_method(method: str) -> None:
    """Refuse methods that /score does not have."""
    if method not in _ROUTED:
        raise Refusal(_not_allowed(_NOT_ROUTED, "GET, HEAD, OPTIONS, POST"))


def _not_allowed(message: str, allow: str) -> Reply:
    return error(405, message)._replace(headers=JSON_HEADERS + [("Allow", allow)])


def other(method: str) -> Refusal:
    """What a script that does not see requests itself answers to methods without input."""
    check_method(method)
    if method == "OPTIONS":
        return Refusal(_OPTIONS)
    return Refusal(_not_allowed("Method not allowed", "GET, OPTIONS, POST"))


class PlainReader:
    """The body as a text, for a run() without decorators."""

    form = "plain"

    def __init__(self, name: str) -> None:
        self._name = name

    def arguments(self, method: str, query: bytes, headers: bytes, body: Any) -> Dict[str, Any]:
        """The arguments by name. Raises Refusal with the answer to a request that has none."""
        if method == "POST":
            try:
                return {self._name: str(body, "utf-8")}
            except UnicodeDecodeError as failure:
                raise refuse(400, "Input cannot be decoded as UTF-8: %s" % failure) from None
        if method == "GET":
            return {self._name: json.dumps(query_values(query))}
        raise other(method)


class SchemaReader:
    """The members of a JSON object by name, for a run() with a decorator of inference-schema."""

    form = "schema"

    def __init__(self, parameters: List[inspect.Parameter]) -> None:
        self._defaults = [(p.name, p.default) for p in parameters]

    def arguments(self, method: str, query: bytes, headers: bytes, body: Any) -> Dict[str, Any]:
        """The arguments by name. Raises Refusal with the answer to a request that has none."""
        if method == "POST":
            return self._named(_json_object(headers, body))
        if method == "GET":
            return self._named(query_values(query))
        raise other(method)

    def _named(self, values: Dict[str, Any]) -> Dict[str, Any]:
        arguments = {}
        for name, default in self._defaults:
            value = values.get(name, default)
            if value is inspect.Parameter.empty:
                raise refuse(400, "A value is not provided for the %r parameter." % name)
            arguments[name] = value
        return arguments


def _json_object(headers: bytes, body: Any) -> Dict[str, Any]:
    if not is_json(header(headers, "content-type")):
        raise refuse(415, "Expects Content-Type to be application/json")
    raw = bytes(body)
    try:
        values = json.loads(raw)
    except json.JSONDecodeError as failure:
        if not raw:
            raise refuse(400, "POST body is empty. Expecting a JSON dictionary.") from None
        raise refuse(400, "POST body could not be decoded as JSON: %s" % failure) from None
    if not isinstance(values, dict):
        raise refuse(400, "POST body should be a JSON dictionary.")
    return values


def query_values(query: bytes) -> Dict[str, Any]:
    """The values of a query by name, each as the JSON that it is or else as a text; the values of
    a repeated name are a list. Bytes that are no UTF-8 stay as they were sent, as %XX."""
    values: Dict[str, Any] = {}
    text = query.decode("utf-8", "zarpa.percent")
    for name, value in parse_qsl(text, keep_blank_values=True, errors="zarpa.percent"):
        values.setdefault(name, []).append(_json_or_text(value))
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _percent(failure: UnicodeError) -> Tuple[str, int]:
    """Write bytes that cannot be decoded as %XX, an error handler of codecs."""
    if not isinstance(failure, UnicodeDecodeError):
        raise failure
    wrong = failure.object[failure.start : failure.end]
    return "".join("%%%02X" % byte for byte in wrong), failure.end


codecs.register_error("zarpa.percent", _percent)


def is_json(content_type: str) -> bool:
    """Whether a Content-Type is application/json or application/…+json, in any case."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.startswith("application/") and kind.endswith("+json")


def header(block: bytes, name: str) -> str:
    """The value of the first header of this name (in lower case), "" where there is none."""
    for key, value in pairs(block):
        if key.lower() == name:
            return value
    return ""


def pairs(block: bytes) -> List[Tuple[str, str]]:
    """The headers of a block, in order."""
    lines = str(block, "latin-1").split("\r\n")
    split = (line.partition(":") for line in lines if line)
    return [(name, value.strip()) for name, _, value in split]


def as_mapping(block: bytes) -> Dict[str, str]:
    """The headers as run() gets them in request_headers: names with capitals, the values of a
    repeated name joined by a comma."""
    found: Dict[str, str] = {}
    for name, value in pairs(block):
        name = name.title()
        found[name] = found[name] + "," + value if name in found else value
    return found
