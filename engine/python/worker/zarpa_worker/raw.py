"""Flask: the request of a @rawhttp script, and its contexts for others that use Flask."""

from __future__ import annotations

import io
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from . import inputs, trouble
from .reply import (
    INTERNAL_ERROR,
    JSON_HEADERS,
    Refusal,
    Reply,
    as_json,
    error,
    from_wsgi,
    is_response,
    measure,
)

# The name of the route in the scoring containers: scripts read it as request.endpoint.
_ENDPOINT = "main.handle_score"
# Where the request's work is found within Flask's own call.
_WORK = "zarpa.work"


class Request(NamedTuple):
    """A request of /score as it came."""

    method: str
    query: bytes
    headers: bytes
    body: Any


class _Work:
    """What is to be done within the contexts of one request, and what came of it."""

    def __init__(self, produce: Callable[[Any], Tuple[Any, float]]) -> None:
        self.produce = produce
        self.exec_ms: Optional[float] = None
        self.run_failed: Optional[bool] = None
        self.response = False
        self.traceback: Optional[str] = None


class Web:
    """Flask's application around run(), so that requests, contexts, after_this_request and sessions
    are Flask's own. Raises ImportError where Flask is not installed."""

    def __init__(self) -> None:
        import flask

        self._flask = flask
        self._app = flask.Flask(__name__)
        # a HEAD route comes with that of GET
        self._app.add_url_rule(
            "/score",
            _ENDPOINT,
            self._view,
            methods=["GET", "POST", "OPTIONS"],
            provide_automatic_options=False,
        )

    def answer(self, request: Request, produce: Callable[[Any], Tuple[Any, float]]) -> Reply:
        """Call produce with Flask's request, in its contexts, and answer with the value and the
        milliseconds that it returns."""
        inputs.check_method(request.method)
        work = _Work(produce)
        head: List[Any] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            head[:] = [status, headers]
            return head.append  # WSGI's old way to write, which Flask does not go

        parts = self._app.wsgi_app(environ(request, work), start_response)
        reply = from_wsgi(head[0], head[1], parts)
        if reply.traceback:
            return reply
        failed = reply.run_failed if work.response else work.run_failed
        return reply._replace(run_failed=failed, exec_ms=work.exec_ms, traceback=work.traceback)

    def _view(self) -> Any:
        request = self._flask.request
        work: _Work = request.environ[_WORK]
        try:
            value, exec_ms = work.produce(request)
            response = value if is_response(value) else self._json(value)
        except Refusal as refusal:
            return self._from_reply(work, refusal.reply)
        except BaseException as failure:
            return self._from_reply(work, error(500, INTERNAL_ERROR, False, trouble.trace(failure)))
        measure(response)
        work.exec_ms, work.run_failed, work.response = exec_ms, False, is_response(value)
        return response

    def _json(self, value: Any) -> Any:
        return self._flask.Response(as_json(value), 200, JSON_HEADERS)

    def _from_reply(self, work: _Work, reply: Reply) -> Any:
        work.run_failed, work.traceback = reply.run_failed, reply.traceback
        return self._flask.Response(reply.body, reply.status, reply.headers)


def environ(request: Request, work: Any) -> Dict[str, Any]:
    """The request as WSGI has it."""
    headers = inputs.as_mapping(request.headers)
    host = headers.get("Host", "localhost")
    name, _, port = host.rpartition(":") if ":" in host.rpartition("]")[2] else (host, "", "80")
    found: Dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": "/score",
        "QUERY_STRING": request.query.decode("latin-1"),
        "RAW_URI": "/score" + ("?" + request.query.decode("latin-1") if request.query else ""),
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "zarpa",
        "REMOTE_ADDR": headers.get("X-Forwarded-For", "127.0.0.1").split(",")[0].strip(),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if headers.get("X-Forwarded-Proto") == "https" else "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        _WORK: work,
    }
    for key, value in headers.items():
        found["HTTP_" + key.upper().replace("-", "_")] = value
    found["CONTENT_TYPE"] = found.pop("HTTP_CONTENT_TYPE", "")
    found.pop("HTTP_CONTENT_LENGTH", None)
    found["CONTENT_LENGTH"] = str(len(request.body))
    return found


def uses_flask(module_files: List[str]) -> bool:
    """Whether any of the script's own files speaks of Flask, so that it may look for a request's
    context in places that only show when they run."""
    for path in module_files:
        try:
            with open(path, "rb") as file:
                if b"flask" in file.read():
                    return True
        except OSError:
            continue
    return False
