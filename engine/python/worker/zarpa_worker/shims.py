"""Small stand-ins for the parts of Azure's packages that scoring scripts import.

They are found only where the package itself is not installed: their finder is the last of
sys.meta_path, so that any real module of the same name comes first, also below a package of which
only a part is there.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import json
import sys
import types
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from . import layout

Fill = Callable[[types.ModuleType], None]

# The modules whose rawhttp says that run() takes requests as they are.
RAW_MODULES = ("azureml_inference_server_http.api.aml_request", "azureml.contrib.services.aml_request")


class ModelNotFoundException(Exception):
    """A model that is not among those of the deployment."""


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and makes the modules."""

    def __init__(self, models: Optional[layout.Models]) -> None:
        model = _fill_model(models)
        request, response = _fill_request, _fill_response
        # each module with what fills it; None for packages that only hold others
        self._modules: Dict[str, Optional[Fill]] = {
            "azureml": None,
            "azureml.core": model,
            "azureml.core.model": model,
            "azureml.contrib": None,
            "azureml.contrib.services": _fill_services,
            "azureml.contrib.services.aml_request": request,
            "azureml.contrib.services.aml_response": response,
            "azureml_inference_server_http": None,
            "azureml_inference_server_http.api": None,
            "azureml_inference_server_http.api.aml_request": request,
            "azureml_inference_server_http.api.aml_response": response,
        }

    def find_spec(
        self, fullname: str, path: Optional[Sequence[Any]], target: Optional[types.ModuleType] = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        """The spec of a module that nothing before has found."""
        if fullname not in self._modules:
            return None
        package = any(name.startswith(fullname + ".") for name in self._modules)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=package)

    def exec_module(self, module: types.ModuleType) -> None:
        """Fill a module."""
        fill = self._modules[module.__name__]
        if fill is not None:
            fill(module)


class RealModels(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Tells the real azureml.core.model, where it is installed, the folder of the models: it looks
    in a folder below the code, which a bundle does not have."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._inner: Any = None

    def find_spec(
        self, fullname: str, path: Optional[Sequence[Any]], target: Optional[types.ModuleType] = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        """The real module's spec, loaded through here."""
        if fullname != "azureml.core.model":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        self._inner, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Optional[types.ModuleType]:
        """The module, as its own loader makes it."""
        made: Optional[types.ModuleType] = self._inner.create_module(spec)
        return made

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the module and set its folder."""
        self._inner.exec_module(module)
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        module.MODELS_DIR = self._root  # type: ignore[attr-defined]


def install(models: Optional[layout.Models]) -> None:
    """Make the stand-ins importable, for this process and its forks."""
    sys.meta_path.append(Finder(models))
    if models is not None and models.registered:
        sys.meta_path.insert(0, RealModels(models.root))


def raw_requested() -> bool:
    """Whether anything in this process was decorated with @rawhttp: as in the containers, the
    decorator marks the process and not the function."""
    loaded = (sys.modules.get(name) for name in RAW_MODULES)
    return any(getattr(module, "_rawHttpRequested", False) for module in loaded)


def _fill_model(models: Optional[layout.Models]) -> Fill:
    class Model:
        """The one part of the real class that works without a workspace."""

        @staticmethod
        def get_model_path(model_name: str, version: Optional[int] = None, _workspace: Any = None) -> str:
            """The file or folder of a registered model; the newest version where none is given."""
            path = layout.model_path(models, model_name, version)
            if path is None:
                raise ModelNotFoundException(
                    "model %r%s is not in this deployment; name it when you deploy: --model %s"
                    % (model_name, "" if version is None else " version %s" % version, model_name)
                )
            return path

    def fill(module: types.ModuleType) -> None:
        vars(module)["Model"] = Model

    return fill


def _fill_services(module: types.ModuleType) -> None:
    request = importlib.import_module(module.__name__ + ".aml_request")
    vars(module)["rawhttp"] = request.rawhttp


def _fill_request(module: types.ModuleType) -> None:
    names = vars(module)

    def rawhttp(func: Any) -> Any:
        """Let run() take the request as it is."""
        names["_rawHttpRequested"] = True
        return func

    names.update(_rawHttpRequested=False, rawhttp=rawhttp, AMLRequest=_request_class())


def _request_class() -> Any:
    """Flask's class; it mostly stands in annotations, so without Flask an empty one does: a raw
    run() needs Flask itself and says so."""
    try:
        import flask
    except ImportError:
        return type("AMLRequest", (), {})
    return flask.Request


def _fill_response(module: types.ModuleType) -> None:
    try:
        import flask

        base: Any = flask.Response
    except ImportError:
        base = Response
    vars(module)["AMLResponse"] = _response_class(base)


def _response_class(base: Any) -> Any:
    class AMLResponse(base):  # type: ignore[misc]
        """A response with a status and headers. A header's value with commas is sent as several."""

        def __init__(
            self,
            message: Any,
            status_code: int,
            response_headers: Mapping[str, str] = types.MappingProxyType({}),
            json_str: bool = False,
            run_function_failed: bool = False,
        ) -> None:
            if message is None or json_str:
                text = json.dumps({} if message is None else message)
                super().__init__(text, status=status_code, mimetype="application/json")
            else:
                super().__init__(message, status=status_code)
                if "Content-Type" in response_headers:
                    self.headers.remove("Content-Type")
            self.headers["x-ms-run-function-failed"] = str(run_function_failed)
            for name, value in response_headers.items():
                for part in value.split(","):
                    self.headers.add_header(name, part.strip())

    return AMLResponse


class Fields:
    """Headers in order, as far as scripts use those of a response."""

    def __init__(self) -> None:
        self.pairs: List[Tuple[str, str]] = []

    def __setitem__(self, name: str, value: Any) -> None:
        self.remove(name)
        self.pairs.append((name, str(value)))

    def __getitem__(self, name: str) -> str:
        for key, value in self.pairs:
            if key.lower() == name.lower():
                return value
        raise KeyError(name)

    def __contains__(self, name: str) -> bool:
        return any(key.lower() == name.lower() for key, _ in self.pairs)

    def get(self, name: str, default: Any = None) -> Any:
        """The first value of a header."""
        return self[name] if name in self else default

    def add_header(self, name: str, value: Any) -> None:
        """Add a header beside others of its name."""
        self.pairs.append((name, str(value)))

    add = add_header

    def remove(self, name: str) -> None:
        """Remove all headers of a name."""
        self.pairs = [pair for pair in self.pairs if pair[0].lower() != name.lower()]


class Response:
    """A response for environments without Flask: a body, a status and headers."""

    def __init__(self, body: Any, status: int = 200, mimetype: str = "text/html; charset=utf-8") -> None:
        self.status_code = status
        self.headers = Fields()
        self.headers["Content-Type"] = mimetype
        self._whole = isinstance(body, (str, bytes, bytearray))
        self.response: Iterable[Any] = [body] if self._whole else body

    def get_wsgi_response(
        self, environ: Dict[str, Any]
    ) -> Tuple[Iterable[bytes], str, List[Tuple[str, str]]]:
        """The body, status and headers, as Flask's responses give them."""
        parts = _encoded(self.response)
        headers = list(self.headers.pairs)
        if not self._whole:
            return parts, "%d STATUS" % self.status_code, headers
        body = list(parts)
        headers.append(("Content-Length", str(sum(map(len, body)))))
        return body, "%d STATUS" % self.status_code, headers


def _encoded(parts: Iterable[Any]) -> Iterator[bytes]:
    """The parts as bytes; what they come from is closed with them."""
    try:
        for part in parts:
            yield part.encode() if isinstance(part, str) else bytes(part)
    finally:
        getattr(parts, "close", bool)()
