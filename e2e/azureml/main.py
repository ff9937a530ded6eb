"""Asks the real server and Zarpa the same things and compares what a client sees.

main.py --server VENV [--sdk VENV] --zarpa COMMAND...   COMMAND is "zarpa score", or what stands in for it

It prints a table and ends with 1 where an answer differs that docs/compatibility.md does not name,
or where one that it names does not differ any more.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from cases import BROKEN, SCRIPTS, Ask, Broken, Script

HERE = os.path.dirname(os.path.abspath(__file__))
COMPATIBILITY = os.path.join(HERE, "..", "..", "docs", "compatibility.md")
# Seconds for a server to answer its first request, and for it to end with a script that is broken.
PATIENCE = 60

# Headers that tell of the moment, the connection or the server's own name.
APART = {"date", "server", "connection", "keep-alive", "x-ms-server-version"}
IDS = {"x-request-id", "x-ms-request-id", "x-ms-client-request-id", "traceid"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Answer(NamedTuple):
    """What a client saw; cut says that the connection ended before the body did."""

    status: int
    headers: Dict[str, List[str]]
    body: Any
    cut: bool = False


class Server(NamedTuple):
    """A server that runs."""

    process: subprocess.Popen
    port: int
    log: str


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(command: List[str], port: int, folder: str, more: Dict[str, str]) -> Server:
    """Start a server with a plain environment."""
    environ = {"PATH": os.environ["PATH"], "HOME": folder, "LANG": "C.UTF-8", **more}
    log = os.path.join(folder, "log.%d" % port)
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command,
            cwd=os.path.join(folder, "code"),
            env=environ,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    return Server(process, port, log)


def stop(server: Server) -> None:
    """End a server and what it started."""
    try:
        os.killpg(server.process.pid, 15)
        server.process.wait(10)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        server.process.kill()
        server.process.wait()


def ready(server: Server) -> None:
    """Wait until the server answers."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if server.process.poll() is not None:
            break
        try:
            if ask(server.port, Ask(method="GET", path="/", headers={})).status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    with open(server.log, errors="replace") as log:
        raise SystemExit("a server did not start:\n" + log.read()[-4000:])


def ask(port: int, what: Ask) -> Answer:
    """Send one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.putrequest(what.method, what.path, skip_accept_encoding=True)
        for name, value in what.headers.items():
            connection.putheader(name, value.encode("latin-1"))
        if what.method == "POST" or what.body:
            connection.putheader("Content-Length", str(len(what.body)))
        connection.endheaders(what.body)
        try:
            response = connection.getresponse()
        except http.client.RemoteDisconnected:
            return Answer(0, {}, b"", True)
        headers: Dict[str, List[str]] = {}
        for name, value in response.getheaders():
            headers.setdefault(name.lower(), []).append(value)
        try:
            return Answer(response.status, headers, response.read())
        except http.client.IncompleteRead as failure:
            return Answer(response.status, headers, failure.partial, True)
    finally:
        connection.close()


def seen(answer: Answer, what: Ask, ids: bool) -> Answer:
    """An answer without what cannot be equal."""
    headers = {}
    for name, values in answer.headers.items():
        if name in APART or not ids and name in IDS:
            continue
        if name == "x-ms-run-fn-exec-ms":
            values = [re.sub(r"^\d+\.\d{3}$", "N.NNN", v) for v in values]
        if name in IDS:
            values = ["UUID" if UUID.fullmatch(v) else v for v in values]
        headers[name] = sorted(values)
    body = answer.body
    if what.path.startswith("/swagger.json") and answer.status in (200, 404):
        headers.pop("content-length", None)
        body = undescribed(json.loads(body))
    if what.method == "HEAD" or answer.status == 304:
        headers.pop("content-length", None)
    return Answer(answer.status, headers, body, answer.cut)


def undescribed(node: Any) -> Any:
    """A document without its explaining texts, which are each server's own."""
    if isinstance(node, dict):
        return {k: undescribed(v) for k, v in node.items() if not (k == "description" and isinstance(v, str))}
    return [undescribed(v) for v in node] if isinstance(node, list) else node


def differences(real: Answer, ours: Answer) -> List[str]:
    """What is not equal, in words."""
    found = []
    for what in ("status", "body", "cut"):
        a, b = getattr(real, what), getattr(ours, what)
        if a != b:
            found.append("%s: %s, Zarpa %s" % (what, short(a), short(b)))
    for name in sorted(set(real.headers) | set(ours.headers)):
        a, b = real.headers.get(name), ours.headers.get(name)
        if a != b:
            found.append("%s: %s, Zarpa %s" % (name, a, b))
    return found


def short(value: Any) -> str:
    """A value in a line."""
    text = json.dumps(value) if isinstance(value, dict) else repr(value)
    return text if len(text) <= 300 else text[:297] + "..."


class Run:
    """One comparison of everything."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.failed = 0
        self.asked = 0
        with open(COMPATIBILITY, encoding="utf-8") as file:
            self.named = set(re.findall(r"^\| `([a-z0-9-]+)` \|", file.read(), re.MULTILINE))
        self.used: set = set()

    def script(self, script: Script) -> None:
        """Compare all answers of a script."""
        if script.replica and self.options.zarpa[0].endswith(".py"):
            print("%-10s skipped: the worker alone has no ids, paths and limits" % script.name)
            return
        venv = self.options.sdk if script.sdk else self.options.server
        if not venv:
            print("%-10s skipped: the environment with azureml-core is not there" % script.name)
            return
        with tempfile.TemporaryDirectory(prefix="zarpa-azureml.") as folder:
            real = self.real(script, os.path.join(folder, "real"), venv)
            ours = self.ours(script, os.path.join(folder, "ours"), venv)
            try:
                ready(real)
                ready(ours)
                for what in script.asks:
                    self.compare(script, what, real, ours)
            finally:
                stop(real)
                stop(ours)

    def real(self, script: Script, folder: str, venv: str) -> Server:
        """Start the real server on a copy of the script, with models where the containers have them."""
        code = self.copy(script.name, folder)
        port = free_port()
        command = [
            os.path.join(venv, "bin", "azmlinfsrv"),
            "--entry_script",
            script.entry,
            "--port",
            str(port),
        ]
        if script.models:
            models = os.path.join(code, "azureml-models")
            self.copy_models(script.models, models)
            command += [
                "--model_dir",
                os.path.join(models, script.models[0]) if len(script.models) == 1 else models,
            ]
        return start(command, port, folder, script.environ)

    def ours(self, script: Script, folder: str, venv: str) -> Server:
        """Start Zarpa on a copy of the script."""
        code = self.copy(script.name, folder)
        port = free_port()
        command = self.options.zarpa + [
            "--code",
            code,
            "--entry",
            script.entry,
            "--listen",
            "127.0.0.1:%d" % port,
        ]
        command = self.python(command, venv)
        if script.models:
            models = os.path.join(folder, "models")
            self.copy_models(script.models, models)
            command += ["--models", models]
        return start(command, port, folder, script.environ)

    def python(self, command: List[str], venv: str) -> List[str]:
        """The command with the interpreter of the environment: as a flag, or in front of a program."""
        python = os.path.join(venv, "bin", "python")
        return [python] + command if command[0].endswith(".py") else command + ["--python", python]

    def copy(self, name: str, folder: str) -> str:
        """A fresh copy of a script's folder."""
        code = os.path.join(folder, "code")
        shutil.copytree(
            os.path.join(HERE, "scripts", name), code, ignore=shutil.ignore_patterns("__pycache__")
        )
        return code

    def copy_models(self, names: List[str], folder: str) -> None:
        """A fresh copy of models."""
        for name in names:
            shutil.copytree(os.path.join(HERE, "models", name), os.path.join(folder, name))

    def compare(self, script: Script, what: Ask, real: Server, ours: Server) -> None:
        """Ask both the same."""
        ids = not self.options.zarpa[0].endswith(".py")
        theirs = seen(ask(real.port, what), what, ids)
        zarpas = seen(ask(ours.port, what), what, ids)
        found = differences(theirs, zarpas)
        verdict = "equal" if not found else "DIFFERS"
        if what.differs:
            verdict, found = self.allowed(what, theirs, zarpas, found)
        self.asked += 1
        self.failed += verdict in ("DIFFERS", "STALE", "UNNAMED")
        print(
            "%-10s %-7s %-40s %-24s %3d  %s"
            % (script.name, what.method, what.path[:40], short(what.body)[:24], zarpas.status, verdict)
        )
        for line in found:
            print("           " + line)

    def allowed(self, what: Ask, theirs: Answer, zarpas: Answer, found: List[str]) -> Tuple[str, List[str]]:
        """Judge a difference that is meant."""
        self.used.add(what.differs)
        if what.differs not in self.named:
            return "UNNAMED", ["docs/compatibility.md has no row `%s`" % what.differs]
        if not found:
            return "STALE", ["the answers are equal: take the difference `%s` away" % what.differs]
        text = zarpas.body.decode("utf-8", "replace") if isinstance(zarpas.body, bytes) else str(zarpas.body)
        if zarpas.status != what.status or what.text not in text:
            return "DIFFERS", found + ["and not as meant: %s %s" % (what.status, what.text)]
        return "as documented: " + what.differs, []

    def broken(self, script: Broken) -> None:
        """Both must end with status 3, and Zarpa must say why."""
        with tempfile.TemporaryDirectory(prefix="zarpa-azureml.") as folder:
            bad = Script("bad", [], entry=script.entry)
            real = self.real(bad, os.path.join(folder, "real"), self.options.server)
            ours = self.ours(bad, os.path.join(folder, "ours"), self.options.server)
            ends = [self.end(real), self.end(ours)]
            with open(ours.log, errors="replace") as log:
                told = log.read()
        missing = [text for text in script.says if text not in told]
        fine = ends == [3, 3] and not missing
        self.asked += 1
        self.failed += not fine
        print(
            "%-10s %-7s %-40s ends with %s and %s  %s"
            % ("bad", "load", script.entry, ends[0], ends[1], "equal" if fine else "DIFFERS")
        )
        if not fine:
            print("           Zarpa does not say %s but:\n%s" % (missing, told[-2000:]))

    def end(self, server: Server) -> Optional[int]:
        """The exit status of a server that cannot go on."""
        try:
            return server.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            stop(server)
            return None


def main() -> int:
    """Run everything; 1 where something is not as it must be."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--server", required=True)
    flags.add_argument("--sdk", default="")
    flags.add_argument("--only", default="", help="one script")
    flags.add_argument("--zarpa", nargs="+", required=True)
    run = Run(flags.parse_args())
    for script in SCRIPTS:
        if run.options.only in ("", script.name):
            run.script(script)
    for bad in BROKEN:
        if run.options.only in ("", "bad"):
            run.broken(bad)
    print("%d asked, %d failed" % (run.asked, run.failed))
    return 1 if run.failed else 0


sys.exit(main())
