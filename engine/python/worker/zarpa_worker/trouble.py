"""What went wrong in a script: tracebacks without the worker's own frames, and load errors that
name the line, the cause and what to do."""

from __future__ import annotations

import importlib.util
import os
import traceback
from typing import Optional

from .errors import LoadError
from .packages import requirement

# as frames have it, so not made absolute
_HERE = os.path.dirname(__file__)
# The longest traceback that is kept, in characters: its end tells more than its beginning.
_LONGEST = 64 << 10
# How many files of the code are looked at to find a module that is in another folder of it.
_SEARCHED = 5000


def trace(failure: BaseException) -> str:
    """The traceback of an exception, from the script's own code on."""
    told = traceback.TracebackException.from_exception(failure)
    _trim(told)
    return "".join(told.format())[-_LONGEST:]


def _trim(told: Optional[traceback.TracebackException]) -> None:
    """Drop the frames of the worker and of the import machinery; keep all if nothing remains."""
    seen = set()
    while told is not None and id(told) not in seen:
        seen.add(id(told))
        kept = [
            frame
            for frame in told.stack
            if not frame.filename.startswith(_HERE) and not frame.filename.startswith("<frozen importlib")
        ]
        if kept:
            told.stack = traceback.StackSummary.from_list(kept)
        told = told.__cause__ or told.__context__


def one_line(failure: BaseException) -> str:
    """An exception as the interpreter writes it, in one line."""
    lines = traceback.format_exception_only(type(failure), failure)
    return " ".join("".join(lines).split())[:2000]


def place(failure: BaseException, code: str) -> str:
    """Where in the code an exception came from, as "score.py, line 3"; "" outside of it."""
    found = ""
    for frame, line in traceback.walk_tb(failure.__traceback__):
        name = frame.f_code.co_filename
        if name.startswith(code + os.sep):
            found = "%s, line %d" % (os.path.relpath(name, code), line)
    return found


def _at(failure: BaseException, code: str) -> str:
    where = place(failure, code)
    return where + ": " if where else ""


def import_trouble(failure: BaseException, code: str) -> LoadError:
    """The load error for what a script's import raised."""
    if isinstance(failure, SyntaxError):
        return _syntax(failure, code)
    if isinstance(failure, ModuleNotFoundError) and failure.name:
        return _not_found(failure, failure.name, code)
    if isinstance(failure, ImportError):
        return _broken_import(failure, code)
    if isinstance(failure, SystemExit):
        return LoadError(
            "import",
            "%sthe script ended the process while it was imported: exit status %s"
            % (_at(failure, code), failure.code),
            "take the call of sys.exit() out of the script",
            trace(failure),
        )
    return LoadError(
        "import",
        _at(failure, code) + one_line(failure),
        "the script raised this while it was imported, before init()",
        trace(failure),
    )


def _syntax(failure: SyntaxError, code: str) -> LoadError:
    name = failure.filename or "the script"
    if name.startswith(code + os.sep):
        name = os.path.relpath(name, code)
    return LoadError(
        "syntax",
        "%s, line %s: %s" % (name, failure.lineno, failure.msg),
        "correct the line; the script must be valid for the Python of its environment",
        trace(failure),
    )


def _not_found(failure: ModuleNotFoundError, module: str, code: str) -> LoadError:
    message = "%sthere is no module %s" % (_at(failure, code), module)
    outer = module.partition(".")[0]
    folder = _folder_of(outer, code)
    if folder:
        hint = "%s is in the folder %s of the code: set AZUREML_SOURCE_DIRECTORY=%s, or import it as %s" % (
            outer,
            folder,
            folder,
            ".".join(folder.split(os.sep) + [module]),
        )
        return LoadError("import", message, hint, trace(failure))
    package = requirement(module)
    if outer != module and not outer.startswith("azureml") and _present(outer):
        hint = "%s is installed, but this version of it has no %s: name the version that you trained with" % (
            outer,
            module,
        )
        return LoadError(
            "import", message, hint + ", as %s==VERSION, in requirements.txt" % package, trace(failure)
        )
    hint = "add the line %s to requirements.txt, or to the pip part of conda.yml" % package
    return LoadError("import", message, hint, trace(failure), package)


def _broken_import(failure: ImportError, code: str) -> LoadError:
    message = _at(failure, code) + one_line(failure)
    missing = ""
    if failure.name and (failure.name + ".").startswith(("azureml.", "azureml_inference_server_http.")):
        missing = requirement(failure.name)
        hint = (
            "add the line %s to requirements.txt: without it there are only the parts that scripts mostly use"
            % missing
        )
    elif "libGL" in str(failure) or "libgthread" in str(failure):
        missing = "opencv-python-headless"
        hint = "use opencv-python-headless in place of opencv-python: it needs no graphics libraries"
    elif "cannot open shared object file" in str(failure):
        hint = "install the system package that has this library on the machine that runs the replica"
    elif failure.name:
        package = requirement(failure.name)
        hint = (
            "the installed version of %s does not fit: name the one you trained with in requirements.txt"
            % package
        )
    else:
        hint = "the packages of the environment do not fit the script: see the traceback"
    return LoadError("import", message, hint, trace(failure), missing)


def _present(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _folder_of(module: str, code: str) -> str:
    """The folder of the code, relative to it, that has a module; "" where there is none."""
    looked = 0
    for folder, folders, files in os.walk(code):
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and f not in ("__pycache__", "site-packages")
        )
        if (
            module + ".py" in files
            or module in folders
            and os.path.isfile(os.path.join(folder, module, "__init__.py"))
        ):
            return "" if folder == code else os.path.relpath(folder, code)
        looked += len(files)
        if looked > _SEARCHED:
            break
    return ""
