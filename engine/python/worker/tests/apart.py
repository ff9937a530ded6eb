"""Runs scripts in processes of their own: loading one changes the process that does it."""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
import tempfile
import textwrap
import unittest
from typing import Any, Callable, Dict, Optional, Sequence

from zarpa_worker import script
from zarpa_worker.errors import LoadError

INIT = "def init():\n    pass\n"


def has(module: str) -> bool:
    """Whether a module is installed."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def needs(*modules: str) -> Any:
    """Skip a test, saying why, where modules are not installed."""
    missing = [m for m in modules if not has(m)]
    return unittest.skipIf(missing, "needs %s, not installed here" % ", ".join(missing))


def within(work: Callable[[], Any]) -> Any:
    """The value of work(), done in a fork. A LoadError comes back as one."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            told: Any = (True, work())
        except LoadError as failure:
            told = (False, (failure.phase, failure.message, failure.hint, failure.traceback, failure.missing))
        except BaseException as failure:
            told = (None, repr(failure))
        with os.fdopen(writer, "wb") as out:
            out.write(pickle.dumps(told))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as received:
        good, value = pickle.loads(received.read())
    os.waitpid(pid, 0)
    if good is None:
        raise AssertionError("the script's process: " + value)
    if not good:
        raise LoadError(*value)
    return value


class Case(unittest.TestCase):
    """A test with a folder for its files; absent names packages that scripts must not find."""

    absent: Sequence[str] = ()

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="zarpa-worker.")
        self.addCleanup(folder.cleanup)
        self.root = os.path.realpath(folder.name)
        self.code = os.path.join(self.root, "code")
        os.mkdir(self.code)

    def write(self, files: Dict[str, str]) -> None:
        """Write files below the test's folder."""
        for name, text in files.items():
            path = os.path.join(self.root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(textwrap.dedent(text))

    def run_script(
        self,
        source: str,
        work: Callable[[script.Service], Any],
        environ: Optional[Dict[str, str]] = None,
        **settings: str,
    ) -> Any:
        """Load score.py with this source, and hand the service to work, in a process apart."""
        absent = self.absent
        self.write({"code/score.py": source})

        def done() -> Any:
            os.environ.update(environ or {})
            sys.modules.update(dict.fromkeys(absent))  # None there: an ImportError
            service = script.load({"code": self.code, "entry": "score.py", **settings})
            service.init()
            return work(service)

        return within(done)

    def fails(self, source: str, environ: Optional[Dict[str, str]] = None, **settings: str) -> LoadError:
        """The error of a script that must not load."""
        with self.assertRaises(LoadError) as caught:
            self.run_script(source, lambda service: None, environ, **settings)
        return caught.exception


def post(service: script.Service, body: bytes, headers: bytes = b"", timeout_ms: int = 0) -> Any:
    """A POST, whole: of an answer in parts, the list of them."""
    return whole(service.score("POST", b"", headers, memoryview(body), timeout_ms))


def whole(reply: Any) -> Any:
    """An answer whose parts are listed."""
    return reply if isinstance(reply.body, bytes) else reply._replace(body=list(reply.body))


JSON = b"Content-Type: application/json\r\n"
