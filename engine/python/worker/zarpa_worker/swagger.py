"""Descriptions of /score: from the decorators of run(), or files of the user's own."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterator, List

from .config import Config
from .errors import LoadError
from .schema import VERSIONS, Described

_HEALTH = "Says whether the service is up."
_SCORE = "Runs the model on the input and returns its prediction."
_SWAGGER = "Describes the service in this format."

# The user's files by version, the first one that is there counts.
_FILES = {"2": ("swagger.json", "swagger2.json"), "3": ("swagger3.json",), "3.1": ("swagger3.1.json",)}

Node = Dict[str, Any]


def build(code: str, config: Config, described: Described) -> Dict[str, str]:
    """The descriptions by version, as JSON; a version that cannot express the schemas is left out.

    Errors: LoadError "contract" for a file of the user's that is no JSON.
    """
    found: Dict[str, str] = {}
    for version in VERSIONS:
        document = next(_own(code, _FILES[version]), None)
        if document is None and version in described.versions:
            document = _Writer(version, config, described).document()
        if document is not None:
            found[version] = json.dumps(document)
    return found


def _own(code: str, names: Any) -> Iterator[Any]:
    for name in names:
        try:
            with open(os.path.join(code, name), encoding="utf-8") as file:
                content = json.load(file)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as failure:
            raise LoadError(
                "contract", "%s: %s" % (name, failure), "correct the file, or take it out of the code"
            ) from failure
        if content:
            yield content


class _Writer:
    """Writes one version of the description."""

    def __init__(self, version: str, config: Config, described: Described) -> None:
        self._two = version == "2"
        self._version = version
        self._config = config
        self._described = described
        self._schemas = "#/definitions/" if self._two else "#/components/schemas/"

    def document(self) -> Node:
        """The whole document."""
        name = self._config.service_name
        info = {
            "title": name,
            "description": "Scoring service " + name,
            "version": self._config.service_version,
        }
        security = {
            "Bearer": {"type": "apiKey", "name": "Authorization", "in": "header", "description": "Bearer KEY"}
        }
        schemas = {
            "ServiceInput": self._described.input,
            "ServiceOutput": self._described.output,
            "ErrorResponse": {"type": "object", "properties": {"message": {"type": "string"}}},
        }
        if self._two:
            return {
                "swagger": "2.0",
                "info": info,
                "schemes": ["https"],
                "consumes": ["application/json"],
                "produces": ["application/json"],
                "securityDefinitions": security,
                "paths": self._paths(),
                "definitions": schemas,
            }
        return {
            "openapi": "3.0.3" if self._version == "3" else "3.1.0",
            "info": info,
            "security": [{"Bearer": []}],
            "paths": self._paths(),
            "components": {"schemas": schemas, "securitySchemes": security},
        }

    def _paths(self) -> Node:
        prefix = self._config.path_prefix.strip("/")
        prefix = "/" + prefix if prefix else ""
        health = self._operation("ServiceHealthCheck", _HEALTH, self._text("up", "Healthy"))
        score = self._operation("RunMLService", _SCORE, self._json("the prediction", "ServiceOutput"))
        score.update(self._input())
        swagger = self._operation("GetSwaggerSpec", _SWAGGER, self._text("the description", ""))
        swagger["parameters"] = [self._version_parameter()]
        return {
            prefix + "/": {"get": health},
            prefix + "/score": {"post": score},
            prefix + "/swagger.json": {"get": swagger},
        }

    def _operation(self, name: str, description: str, answer: Node) -> Node:
        return {
            "operationId": name,
            "description": description,
            "responses": {"200": answer, "default": self._json("what went wrong", "ErrorResponse")},
        }

    def _input(self) -> Node:
        schema = {"$ref": self._schemas + "ServiceInput"}
        security: List[Node] = [{"Bearer": []}]
        if self._two:
            body = {"name": "serviceInputPayload", "in": "body", "description": "the input", "schema": schema}
            return {"security": security, "parameters": [body]}
        content = {"application/json": {"schema": schema}}
        return {"security": security, "requestBody": {"description": "the input", "content": content}}

    def _json(self, description: str, schema: str) -> Node:
        reference = {"$ref": self._schemas + schema}
        if self._two:
            return {"description": description, "schema": reference}
        return {"description": description, "content": {"application/json": {"schema": reference}}}

    def _text(self, description: str, example: str) -> Node:
        schema: Node = {"type": "string"}
        if self._two:
            answer: Node = {"description": description, "schema": schema}
            if example:
                answer["examples"] = {"application/json": example}
            return answer
        if example:
            schema["example"] = example
        return {"description": description, "content": {"text/plain": {"schema": schema}}}

    def _version_parameter(self) -> Node:
        versions: List[int] = [2, 3]
        kind = {"type": "integer", "enum": versions}
        parameter: Node = {"name": "version", "in": "query", "required": False}
        parameter.update(kind if self._two else {"schema": kind})
        return parameter
