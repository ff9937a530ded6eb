"""The entry script: importing it, and what its run() must be like."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from types import ModuleType
from typing import Any, Callable, List, NamedTuple

from .errors import LoadError
from .trouble import import_trouble

# The name that the containers import a script under.
_MODULE = "entry_module"
# A script that gets the headers of a request takes them by this name.
HEADERS = "request_headers"

_EXAMPLE = "a script has def init(): and def run(data):"


class Entry(NamedTuple):
    """A script's functions. parameters are those of run() without request_headers; batch is None
    where the script has no run_batch()."""

    init: Callable[[], Any]
    run: Callable[..., Any]
    parameters: List[inspect.Parameter]
    wants_headers: bool
    batch: Any


def load(code: str, name: str) -> Entry:
    """Import the script name of the folder code and find its functions.

    Errors: LoadError "contract" where it is not what a script must be, "syntax" or "import".
    """
    module = _import(code, name or "main.py")
    if not hasattr(module, "init"):
        raise LoadError("contract", "%s: it has no function init()" % name, _EXAMPLE)
    if not hasattr(module, "run"):
        raise LoadError("contract", "%s: it has no function run()" % name, _EXAMPLE)
    # Scripts that SDKs generated stand before the real one, whose run() they only call, and not
    # with the arguments that decorators want. Their init() does work of its own.
    inner = getattr(module, "driver_module", None)
    scoring = inner if isinstance(inner, ModuleType) and hasattr(inner, "run") else module
    parameters = _parameters(scoring.run, "run()")
    wanted = [p for p in parameters if p.name != HEADERS]
    if not wanted:
        raise LoadError("contract", "run(): it has no parameter for the request", "write def run(data):")
    return Entry(
        init=module.init,
        run=scoring.run,
        parameters=wanted,
        wants_headers=len(wanted) < len(parameters),
        batch=_batch(scoring),
    )


def _batch(module: ModuleType) -> Any:
    function = getattr(module, "run_batch", None)
    if function is None:
        return None
    if len(_parameters(function, "run_batch()")) != 1:
        raise LoadError(
            "contract",
            "run_batch(): it must have one parameter, the list of inputs",
            "write def run_batch(inputs):",
        )
    return function


def _parameters(function: Any, name: str) -> List[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as failure:
        raise LoadError("contract", "%s: it is no function: %s" % (name, failure), _EXAMPLE) from failure
    for p in parameters:
        if p.kind not in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD):
            raise LoadError(
                "contract",
                "%s: the parameter %s cannot be given by its name" % (name, p),
                "give it ordinary parameters: no positional-only ones, no *args and no **kwargs",
            )
    return parameters


def _import(code: str, name: str) -> ModuleType:
    path = os.path.join(code, name)
    if not os.path.isfile(path):
        there = sorted(f for f in os.listdir(code) if not f.startswith("."))[:20]
        raise LoadError(
            "contract",
            "the entry script %s is not in the code, whose folder has: %s"
            % (name, ", ".join(there) or "nothing"),
            "name the script by its path within the code: --entry FILE",
        )
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise LoadError(
            "contract", "the entry script %s is no Python file" % name, "give it a name that ends in .py"
        )
    module = importlib.util.module_from_spec(spec)
    # what pickles and annotations of the script's own classes look for
    sys.modules[_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as failure:
        raise import_trouble(failure, code) from failure
    return module
