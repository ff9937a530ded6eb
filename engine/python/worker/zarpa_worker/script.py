"""A scoring script as a service: init() once, run() for each request.

The contract is that of Azure ML's scoring containers, as azureml-inference-server-http has it; what
differs, and why, is in docs/compatibility.md.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple

from . import config, cors, entry, inputs, layout, raw, schema, shims, swagger, trouble
from .batch import Asked, Batch
from .errors import LoadError
from .limit import Limit
from .reply import INTERNAL_ERROR, SCRIPT_ERROR, Refusal, Reply, error, from_value

# How many lines of the models' folder are printed when init() failed.
_TREE = 200


class Service:
    """A loaded script, for one thread. form is "plain", "schema" or "raw"; wants_headers says that
    score needs all headers of a request, and not Content-Type alone; batch that the script takes
    several requests at once. They are settled when init() has returned."""

    def __init__(self, code: str, settings: config.Config, models: Optional[layout.Models]) -> None:
        """Import the script. Errors: LoadError."""
        self._code = code
        self._config = settings
        self._models = models
        self._cors = cors.Cors(settings.cors) if settings.cors else None
        self._limit = Limit(settings.timeout_ms)
        self._entry = entry.load(code, settings.entry)
        self._run = self._entry.run
        self._wants = self._entry.wants_headers
        self._web: Optional[raw.Web] = None
        self._batch: Optional[Batch] = None
        self.wants_headers = False
        self.batch = self._entry.batch is not None
        self._choose_form()

    def _choose_form(self) -> None:
        """Decide what run() gets. @rawhttp marks the process, as in the containers."""
        decorated = schema.decorated(self._run)
        parameters = self._entry.parameters
        if shims.raw_requested():
            if decorated:
                raise LoadError(
                    "contract", "run(): it has both @rawhttp and a schema decorator", "keep one of them"
                )
            if self.batch:
                raise LoadError(
                    "contract", "run_batch(): a @rawhttp script has no batches", "take one of the two out"
                )
            self.form = "raw"
        elif decorated:
            self.form = "schema"
            self._reader: Any = inputs.SchemaReader(parameters)
        else:
            self.form = "plain"
            self._reader = inputs.PlainReader(parameters[0].name)
        if self.batch and self._wants:
            raise LoadError(
                "contract",
                "run_batch(): a script that takes request_headers has no batches",
                "take one of the two out",
            )
        if self.batch:
            self._batch = Batch(self._entry.batch, self._batch_input, self._limit)

    def init(self) -> None:
        """Run the script's init(). Errors: LoadError "init" for whatever it raises, an exit too."""
        try:
            self._entry.init()
        except BaseException as failure:
            if self._models is not None:
                print("the files of AZUREML_MODEL_DIR:", file=sys.stderr)
                print("\n".join(layout.tree(self._models.directory, _TREE)), file=sys.stderr)
            where = trouble.place(failure, self._code)
            raise LoadError(
                "init",
                "init() failed%s: %s" % (" at " + where if where else "", trouble.one_line(failure)),
                _init_hint(failure),
                trouble.trace(failure),
            ) from failure
        # the script's own files are those that are loaded by now
        if self.form == "raw" or raw.uses_flask(self._own_files()):
            self._web = self._make_web()
        self.wants_headers = self._wants or self._web is not None or self._cors is not None

    def _make_web(self) -> Optional[raw.Web]:
        try:
            return raw.Web()
        except ImportError as failure:
            if self.form != "raw":
                return None
            raise LoadError(
                "contract",
                "run(): @rawhttp hands it a request of Flask, which is not installed: %s" % failure,
                "add the line flask to requirements.txt, or to the pip part of conda.yml",
                "",
                "flask",
            ) from failure

    def _own_files(self) -> List[str]:
        files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        return [f for f in files if f and f.startswith(self._code + os.sep) and "site-packages" not in f]

    def swagger(self) -> Dict[str, str]:
        """The descriptions by version, after init(), which may write them. Errors: LoadError."""
        return swagger.build(self._code, self._config, schema.describe(self._run))

    def score(self, method: str, query: bytes, headers: bytes, body: Any, timeout_ms: int) -> Reply:
        """Answer one request. query is without its ?, headers are lines of "Name: value", body is
        what bytes() takes, timeout_ms is the server's limit, 0 for none. It raises nothing."""
        try:
            reply = self._score(method, query, headers, body, timeout_ms)
        except Refusal as refusal:
            reply = refusal.reply
        except BaseException as failure:
            reply = error(500, INTERNAL_ERROR, False, trouble.trace(failure))
        if self._cors is not None:
            reply = _shared(self._cors, method, headers, reply)
        return reply

    def score_batch(self, requests: Sequence[Asked]) -> List[Reply]:
        """Answer several requests with one call of run_batch()."""
        assert self._batch is not None
        replies = self._batch.answer(requests)
        if self._cors is None:
            return replies
        return [_shared(self._cors, r[0], r[2], reply) for r, reply in zip(requests, replies)]

    def _score(self, method: str, query: bytes, headers: bytes, body: Any, timeout_ms: int) -> Reply:
        if self._web is None:
            arguments = self._reader.arguments(method, query, headers, body)
            value, took = self._call(arguments, headers, timeout_ms)
            return from_value(value, took, method)

        def produce(request: Any) -> Tuple[Any, float]:
            if self.form == "raw":
                arguments = {self._entry.parameters[0].name: request}
            else:
                arguments = self._reader.arguments(method, query, headers, body)
            return self._call(arguments, headers, timeout_ms)

        return self._web.answer(raw.Request(method, query, headers, body), produce)

    def _call(self, arguments: Dict[str, Any], headers: bytes, timeout_ms: int) -> Tuple[Any, float]:
        """Call run(); the value and the milliseconds. Raises Refusal with the answer to a failure."""
        if self._wants:
            arguments[entry.HEADERS] = inputs.as_mapping(headers)
        limit = self._limit
        limit.start(timeout_ms)
        try:
            try:
                value = self._run(**arguments)
            finally:
                limit.stop()
        except TimeoutError as failure:
            reply = limit.exceeded(failure, timeout_ms) or error(500, SCRIPT_ERROR, True)
            raise Refusal(reply._replace(traceback=trouble.trace(failure))) from None
        except BaseException as failure:
            raise Refusal(error(500, SCRIPT_ERROR, True, trouble.trace(failure))) from None
        return value, limit.took

    def _batch_input(self, request: Asked) -> Any:
        """What run() would have got: the text, or the arguments after their decorators."""
        method, query, headers, body, _ = request
        arguments = self._reader.arguments(method, query, headers, body)
        if self.form == "plain":
            return arguments[self._entry.parameters[0].name]
        try:
            return schema.convert(self._run, arguments)
        except Exception as failure:
            raise Refusal(error(500, SCRIPT_ERROR, True, trouble.trace(failure))) from None


def _shared(rules: cors.Cors, method: str, headers: bytes, reply: Reply) -> Reply:
    """The answer with what it says to pages of other origins."""
    return reply._replace(headers=cors.merge(reply.headers, rules.headers(method, headers)))


def _init_hint(failure: BaseException) -> str:
    if isinstance(failure, FileNotFoundError):
        return "AZUREML_MODEL_DIR is %s; its files are in the log" % os.environ.get(
            "AZUREML_MODEL_DIR", "not set: the deployment has no model"
        )
    if isinstance(failure, SystemExit):
        return "init() ended the process: take the call of sys.exit() out of it"
    return "the traceback is in the log"


def load(settings: Dict[str, Any]) -> Service:
    """Import the script that settings name and prepare what it expects around it.

    settings: "code" is the folder of the code, "entry" the script within it, and "models" the folder
    of NAME/VERSION/…, or that of one model; entry and models may be missing. It changes the working
    directory, the import path and variables of this process. Errors: LoadError.
    """
    code = os.path.realpath(settings["code"])
    root = settings.get("models") or ""
    models = layout.find(os.path.realpath(root)) if root else None
    options = config.read(os.environ, code, settings.get("entry") or "")
    if models is None and options.model_directory:
        models = layout.Models(options.model_directory, options.model_directory, False)
    os.environ["AML_APP_ROOT"] = code
    os.environ["AZUREML_ENTRY_SCRIPT"] = options.entry or "main.py"
    if models is not None:
        os.environ.setdefault("AZUREML_MODEL_DIR", models.directory)
    os.chdir(code)
    source = os.path.join(code, options.source_directory)
    beside = os.path.dirname(os.path.join(code, options.entry))
    sys.path.insert(0, code)
    sys.path += [folder for folder in (source, beside) if folder not in sys.path]
    shims.install(models)
    return Service(code, options, models)
