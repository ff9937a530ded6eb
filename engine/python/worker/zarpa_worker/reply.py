"""Answers: what becomes of the value that run() returned, and what errors look like."""

from __future__ import annotations

import json
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Union

from . import trouble

Headers = List[Tuple[str, str]]

# The one header of an answer in JSON. Shared between answers, so nobody appends to it.
JSON_HEADERS: Headers = [("Content-Type", "application/json")]
# Where an answer says whether run() failed. The server writes it from Reply.run_failed.
FAILED_HEADER = "x-ms-run-function-failed"

SCRIPT_ERROR = "An unexpected error occurred in scoring script. Check the logs for more info."
INTERNAL_ERROR = "An unexpected internal error occurred. Check the logs for more info."

# Bodies up to this size, in bytes, are sent in one piece when they tell their length.
_WHOLE = 1 << 20

# Statuses whose answers have no body.
_BODILESS = frozenset((204, 304))

# Types whose values json.dumps takes or refuses by itself: they are no responses.
_PLAIN = frozenset((dict, list, str, tuple, int, float, bool, type(None)))


class Reply(NamedTuple):
    """An answer to a request.

    body is bytes, or an iterator of bytes for an answer in parts. run_failed is None where the
    answer does not say whether run() failed. exec_ms is how long run() took, where it returned
    something that could be sent. traceback is for the log.
    """

    status: int
    headers: Headers
    body: Union[bytes, Iterator[bytes]]
    run_failed: Optional[bool]
    exec_ms: Optional[float]
    traceback: Optional[str] = None


class Refusal(Exception):
    """A request that does not reach run(), with the answer to it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def error(status: int, message: str, run_failed: bool = False, traceback: Optional[str] = None) -> Reply:
    """An error as the clients of the scoring containers know it."""
    body = json.dumps({"message": message}).encode()
    return Reply(status, JSON_HEADERS, body, run_failed, None, traceback)


def refuse(status: int, message: str) -> Refusal:
    """An error to raise, of a request that run() does not see."""
    return Refusal(error(status, message))


def from_value(value: Any, exec_ms: float, method: str) -> Reply:
    """The answer for what run() returned: a response as it is, anything else as JSON.

    Errors: Refusal for what JSON cannot hold, and what a response raises when it is rendered.
    """
    if not is_response(value):
        return Reply(200, JSON_HEADERS, as_json(value), False, exec_ms)
    # rendering looks at the environ for little more than HEAD and relative addresses
    environ = {"REQUEST_METHOD": method, "wsgi.url_scheme": "http", "HTTP_HOST": "localhost"}
    measure(value)
    parts, status, headers = value.get_wsgi_response(environ)
    reply = from_wsgi(status, headers, parts)
    return reply if reply.traceback else reply._replace(exec_ms=exec_ms)


def is_response(value: Any) -> bool:
    """Whether run() returned a response object: Flask's, one of its kind, or the shims'."""
    return type(value) not in _PLAIN and hasattr(value, "get_wsgi_response")


def as_json(value: Any) -> bytes:
    """A value as the containers write it. Raises Refusal for one that JSON cannot hold, with a word
    for the log in place of a traceback, which would be of the interpreter's own code."""
    try:
        return json.dumps({} if value is None else value).encode()
    except Exception as failure:
        kind = type(value)
        told = (
            "%s: run() returned a %s.%s that JSON cannot hold: return lists, dicts, strings, numbers, or a response; "
            "arrays have tolist()" % (trouble.one_line(failure), kind.__module__, kind.__qualname__)
        )
    raise Refusal(error(500, INTERNAL_ERROR, False, told))


def measure(response: Any) -> None:
    """Let a response whose body is all there tell its length."""
    if not getattr(response, "is_streamed", True):
        response.calculate_content_length()


def from_wsgi(status: str, headers: Any, parts: Any) -> Reply:
    """The answer that a WSGI response is, an error where its body fails before its first part."""
    code = int(status.split(None, 1)[0])
    failed, headers = _take_failed([(str(name), str(value)) for name, value in headers])
    if code >= 500:
        failed, headers = True, [h for h in headers if h[0].lower() != FAILED_HEADER]
    try:
        body = b"" if code in _BODILESS else _body(headers, parts)
        return Reply(code, headers, body, failed, None)
    except Exception as failure:  # of a generator, which is the script's code
        return error(500, SCRIPT_ERROR, True, trouble.trace(failure))


def _body(headers: Headers, parts: Any) -> Union[bytes, Iterator[bytes]]:
    """A small body of known length whole, others in parts."""
    length = next((value for name, value in headers if name.lower() == "content-length"), "")
    if length.isdigit() and int(length) <= _WHOLE:
        whole = b"".join(parts)
        close(parts)
        return whole
    return streamed(parts)


def _take_failed(headers: Headers) -> Tuple[Optional[bool], Headers]:
    """Take FAILED_HEADER out where it says what the server would write; another value of the
    script's own stays where it is."""
    said = [value for name, value in headers if name.lower() == FAILED_HEADER]
    if said != ["True"] and said != ["False"]:
        return None, headers
    return said[0] == "True", [h for h in headers if h[0].lower() != FAILED_HEADER]


def streamed(parts: Iterable[Any]) -> Iterator[bytes]:
    """The parts of a body, the first of which is there already: what fails before it can still be
    answered with an error. An error of the body is raised."""
    iterator = iter(parts)
    try:
        first = next((part for part in iterator if len(part)), None)
    except BaseException:
        close(parts)
        raise
    return _Parts(first, iterator, parts)


class _Parts:
    """A body in parts. It is closed when it has ended, and when its reader closes it."""

    def __init__(self, first: Optional[bytes], rest: Iterator[bytes], whole: Iterable[Any]) -> None:
        self._first = first
        self._rest = rest
        self._whole = whole

    def __iter__(self) -> "_Parts":
        return self

    def __next__(self) -> bytes:
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            return next(self._rest)
        except StopIteration:
            self.close()
            raise

    def close(self) -> None:
        """Give back what the body holds. Closing twice is no error."""
        whole, self._whole = self._whole, ()
        close(whole)


def close(parts: Any) -> None:
    """Close a body that has something to close."""
    closing = getattr(parts, "close", None)
    if closing is not None:
        closing()
