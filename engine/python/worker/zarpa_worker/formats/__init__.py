"""Models without code: each format has a module that loads its files and runs the model.

Only this package's modules are imported with it: a framework, and NumPy with it, is imported when a
model of it is loaded.
"""

from __future__ import annotations

import importlib.util
import os
import traceback
from typing import TYPE_CHECKING, Any

from ..errors import LoadError

if TYPE_CHECKING:
    from .model import Model

# For each format its module and the function in it.
LOADERS = {
    "sklearn": ("estimator", "load"),
    "pickle": ("estimator", "load"),
    "xgboost": ("boosters", "load_xgboost"),
    "lightgbm": ("boosters", "load_lightgbm"),
    "torchscript": ("pytorch", "load_script"),
    "torchexport": ("pytorch", "load_export"),
    "savedmodel": ("savedmodel", "load"),
    "keras": ("keras_model", "load"),
    "mlflow": ("pyfunc", "load"),
}


def load(format: str, directory: str, file: str) -> Model:
    """Load a model of one of LOADERS from a directory; file is its path in there, empty where the
    directory itself is the model.

    Raises LoadError, whatever went wrong, with the name of a package that is missing.
    """
    if format not in LOADERS:
        raise LoadError("model", "format %r: unknown" % format, "use one of " + ", ".join(LOADERS))
    module, function = LOADERS[format]
    path = os.path.join(directory, *file.split("/")) if file else directory
    try:
        loader: Any = getattr(importlib.import_module("." + module, __name__), function)
        return loader(path)
    except LoadError:
        raise
    except ModuleNotFoundError as failure:
        raise missing_package(failure) from failure
    except Exception as failure:
        raise broken(failure) from failure


# What packages are called where they are installed, for modules with another name.
PACKAGES = {
    "sklearn": "scikit-learn",
    "imblearn": "imbalanced-learn",
    "tensorflow": "tensorflow-cpu",
    "xgboost": "xgboost-cpu",
    "mlflow": "mlflow-skinny",
    "category_encoders": "category-encoders",
    "umap": "umap-learn",
    "yaml": "PyYAML",
}


def missing_package(failure: ModuleNotFoundError) -> LoadError:
    """A module that is not there: of a package, or of a package's other version."""
    name = failure.name or ""
    top = name.partition(".")[0]
    trace = traceback.format_exc()
    if top != name and _installed(top):
        message = "the model needs the module %s, which the installed %s does not have" % (
            name,
            PACKAGES.get(top, top),
        )
        hint = "install the version of %s that saved the model" % PACKAGES.get(top, top)
        return LoadError("import", message, hint, trace)
    package = PACKAGES.get(top, top)
    message = "the model needs the module %s, which is not installed" % name
    return LoadError(
        "import", message, "add the line %s to requirements.txt" % package, trace, package
    )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def broken(failure: Exception) -> LoadError:
    """A model that its framework does not read."""
    text = "".join(traceback.format_exception_only(type(failure), failure))
    text = text.partition("\nStack trace:")[0].strip()  # C++'s, which stays in the traceback
    hint = (
        "load the file in this environment by hand; "
        "a file of another framework version is saved again there"
    )
    return LoadError(
        "model", "the model cannot be loaded: " + text[:2000], hint, traceback.format_exc()
    )
