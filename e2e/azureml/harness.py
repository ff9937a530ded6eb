"""Serves one scoring script over HTTP with the worker's own code and nothing of the server's.

It stands in for `zarpa score` where only the contract of scripts is looked at: what is the server's
(request ids, limits, several workers) it does not have. Its exit status is a worker's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.parse
from http.server import BaseHTTPRequestHandler, HTTPServer

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "engine", "python", "worker")
)

from zarpa_worker import script  # noqa: E402
from zarpa_worker.errors import LoadError  # noqa: E402


class Handler(BaseHTTPRequestHandler):
    """Hands requests on to the script."""

    protocol_version = "HTTP/1.1"
    service: script.Service
    swagger: dict

    def handle_one(self) -> None:
        """Answer any method."""
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if path == "/":
            return self.whole(200, [("Content-Type", "text/plain")], b"Healthy")
        if path == "/swagger.json":
            return self.described(
                urllib.parse.parse_qs(query, keep_blank_values=True).get("version", ["2"])[0]
            )
        if path != "/score":
            return self.whole(404, [("Content-Type", "application/json")], b"{}")
        block = "".join("%s: %s\r\n" % pair for pair in self.headers.items()).encode("latin-1")
        reply = self.service.score(self.command, query.encode("latin-1"), block, memoryview(body), 0)
        if reply.traceback:
            print(reply.traceback, file=sys.stderr, flush=True)
        headers = list(reply.headers)
        if reply.run_failed is not None:
            headers.append(("x-ms-run-function-failed", str(reply.run_failed)))
        if reply.exec_ms is not None:
            headers.append(("x-ms-run-fn-exec-ms", "%.3f" % reply.exec_ms))
        if isinstance(reply.body, bytes):
            return self.whole(reply.status, headers, reply.body)
        return self.parts(reply.status, headers, reply.body)

    def described(self, version: str) -> None:
        """Answer with the description of a version."""
        headers = [("Content-Type", "application/json"), ("x-ms-run-function-failed", "False")]
        text = self.swagger.get({"2.0": "2", "3.0": "3"}.get(version, version))
        if text is not None:
            return self.whole(200, headers, text.encode())
        there = ", ".join(sorted(self.swagger))
        message = "Swagger version [%s] is not valid. Supported versions: [%s]." % (version, there)
        if version in ("2", "2.0", "3", "3.0", "3.1"):
            message = (
                "Swagger version [%s] is not supported for the scoring script. Supported swagger versions: [%s]."
                % (version, there)
            )
        return self.whole(404, headers, json.dumps({"message": message}).encode())

    def whole(self, status: int, headers: list, body: bytes) -> None:
        """Answer in one piece."""
        self.head(status, headers)
        if status not in (204, 304) and not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def parts(self, status: int, headers: list, parts: object) -> None:
        """Answer in chunks; an error cuts the connection."""
        self.head(status, headers)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for part in parts:
                if part:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        except Exception as failure:
            print(failure, file=sys.stderr)
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    def head(self, status: int, headers: list) -> None:
        """The status line and headers."""
        self.send_response(status)
        for pair in headers:
            self.send_header(*pair)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
    setattr(Handler, "do_" + name, Handler.handle_one)


def main() -> int:
    """Serve until it is ended; 3 when the script cannot be loaded."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--code", required=True)
    flags.add_argument("--entry", default="")
    flags.add_argument("--models", default="")
    flags.add_argument("--listen", required=True)
    options = flags.parse_args()
    try:
        Handler.service = script.load(
            {"code": options.code, "entry": options.entry, "models": options.models}
        )
        Handler.service.init()
        Handler.swagger = Handler.service.swagger()
    except LoadError as failure:
        print(
            "%s: %s\n%s\n%s" % (failure.phase, failure.message, failure.hint, failure.traceback),
            file=sys.stderr,
        )
        return 3
    host, _, port = options.listen.rpartition(":")
    HTTPServer((host, int(port)), Handler).serve_forever()
    return 0


sys.exit(main())
