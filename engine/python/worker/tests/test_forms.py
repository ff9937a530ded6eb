"""Scripts with schemas and with raw requests, by the packages that give them their forms."""

from __future__ import annotations

import json
import unittest

from .apart import INIT, JSON, Case, has, needs, post

SCHEMA = """
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema
def init():
    pass
@input_schema("a", StandardPythonParameterType(1))
@output_schema(StandardPythonParameterType(1))
def run(a, b=2):
    return a + b
"""
RAW = """
from azureml.contrib.services.aml_request import rawhttp
def init():
    pass
@rawhttp
def run(request):
    return [request.method, request.get_data(as_text=True), request.args.get("q"), request.headers.get("X-A"), request.host]
"""


class Schema(Case):
    @needs("inference_schema")
    def test_arguments_come_by_name(self) -> None:
        for body, headers, status, text in (
            (b'{"a": 1}', JSON, 200, "3"),
            (b'{"a": 1, "b": 5, "c": 0}', b"content-type: Application/X+JSON; a=b\r\n", 200, "6"),
            (b'{"a": 1}', b"", 415, "Expects Content-Type to be application/json"),
            (b"", JSON, 400, "POST body is empty. Expecting a JSON dictionary."),
            (b"{", JSON, 400, "POST body could not be decoded as JSON: "),
            (b"[1]", JSON, 400, "POST body should be a JSON dictionary."),
            (b"{}", JSON, 400, "A value is not provided for the 'a' parameter."),
            (b'{"a": "x"}', JSON, 500, "scoring script"),
            (b"\xff", JSON, 500, "internal error"),
        ):
            with self.subTest(body=body):
                form, reply = self.run_script(SCHEMA, lambda s: (s.form, post(s, body, headers)))
                self.assertEqual((form, reply.status), ("schema", status))
                self.assertIn(text, reply.body.decode())

    @needs("inference_schema")
    def test_batches_get_converted_arguments(self) -> None:
        source = (
            SCHEMA.replace("(1)", "([1])", 1)
            + "def run_batch(inputs):\n    return [[type(i['a']).__name__, i['b']] for i in inputs]\n"
        )
        asked = [
            ("POST", b"", JSON, b'{"a": [1]}', 0),
            ("POST", b"", JSON, b'{"a": 5}', 0),
            ("POST", b"", JSON, b"{}", 0),
        ]
        replies = self.run_script(source, lambda s: s.score_batch(asked))
        self.assertEqual([r.status for r in replies], [200, 500, 400])
        self.assertEqual(json.loads(replies[0].body), ["list", 2])

    @needs("inference_schema", "numpy")
    def test_arrays_are_arrays_in_batches(self) -> None:
        source = """
            import numpy as np
            from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
            from inference_schema.schema_decorators import input_schema
            def init():
                pass
            @input_schema("data", NumpyParameterType(np.array([[1.5, 2.5]])))
            def run(data):
                return data.sum()
            def run_batch(inputs):
                return np.concatenate([i["data"] for i in inputs]).sum(axis=1).tolist()
        """
        asked = [("POST", b"", JSON, b'{"data": [[%d, 1]]}' % i, 0) for i in range(3)]
        replies = self.run_script(source, lambda s: s.score_batch(asked))
        self.assertEqual([json.loads(r.body) for r in replies], [1.0, 2.0, 3.0])

    @needs("inference_schema")
    def test_the_description_has_the_schemas(self) -> None:
        described = self.run_script(SCHEMA, lambda s: s.swagger())
        self.assertEqual(sorted(described), ["2", "3", "3.1"])
        schema = json.loads(described["2"])["definitions"]["ServiceInput"]
        self.assertEqual(schema["example"], {"a": 1, "b": ""})
        self.assertEqual(json.loads(described["3.1"])["openapi"], "3.1.0")


class Raw(Case):
    @needs("flask")
    def test_run_gets_the_request(self) -> None:
        def work(service: object) -> object:
            block = b"Host: h:1\r\nX-A: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
            return (
                service.form,
                service.wants_headers,
                service.score("POST", b"q=%20x", block, memoryview(b"hi"), 0),
            )

        form, headers, reply = self.run_script(RAW, work)
        self.assertEqual((form, headers), ("raw", True))
        self.assertEqual(json.loads(reply.body), ["POST", "hi", " x", "a", "h:1"])
        self.assertEqual((reply.run_failed, reply.exec_ms is None), (False, False))

    @needs("flask")
    def test_errors_are_those_of_other_forms(self) -> None:
        for statement, status, failed in (
            ("raise KeyError('x')", 500, True),
            ("return {1}", 500, False),
            ("return None", 200, False),
        ):
            source = RAW[: RAW.index("    return")] + "    %s\n" % statement
            with self.subTest(statement=statement):
                reply = self.run_script(source, lambda s: post(s, b""))
                self.assertEqual((reply.status, reply.run_failed), (status, failed))
                self.assertEqual(bool(reply.traceback), status == 500)

    @needs("flask")
    def test_an_ordinary_run_has_the_contexts_it_speaks_of(self) -> None:
        source = (
            INIT
            + "def run(data):\n    from flask import request, jsonify\n    return jsonify(request.headers['X-A'])\n"
        )
        reply = self.run_script(source, lambda s: post(s, b"", b"X-A: a\r\n"))
        self.assertEqual((reply.status, json.loads(reply.body), reply.run_failed), (200, "a", None))

    @unittest.skipIf(has("azureml"), "azureml is installed here, which needs Flask")
    def test_without_flask_the_line_to_add_is_named(self) -> None:
        self.absent = ("flask",)
        failure = self.fails(RAW)
        self.assertEqual((failure.phase, failure.missing), ("contract", "flask"))
        self.assertIn("add the line flask to requirements.txt", failure.hint)

    def test_batches_are_not_for_raw_requests(self) -> None:
        failure = self.fails(RAW + "def run_batch(inputs):\n    return inputs\n")
        self.assertIn("run_batch()", failure.message)
