"""Responses, whole and in parts, of the stand-ins or of what is installed."""

from __future__ import annotations

import unittest

from .apart import INIT, Case, has, needs, post, whole

HEAD = "from azureml_inference_server_http.api.aml_response import AMLResponse\n" + INIT


class Answers:
    """What holds for responses of both kinds."""

    def answer(self, expression: str) -> object:
        return self.run_script(HEAD + "def run(data):\n    return %s\n" % expression, lambda s: post(s, b""))

    def test_status_headers_and_body_go_out_as_they_are(self) -> None:
        reply = self.answer("AMLResponse(b'\\x00\\xff', 201, {'Content-Type': 'image/png', 'X-A': '1, 2'})")
        self.assertEqual((reply.status, reply.body, reply.run_failed), (201, b"\x00\xff", False))
        headers = [h for h in reply.headers if h[0] != "Content-Length"]
        self.assertEqual(headers, [("Content-Type", "image/png"), ("X-A", "1"), ("X-A", "2")])
        self.assertIsNotNone(reply.exec_ms)

    def test_json_and_nothing(self) -> None:
        for expression, body in (
            ("AMLResponse({'a': 1}, 200, json_str=True)", b'{"a": 1}'),
            ("AMLResponse(None, 200)", b"{}"),
        ):
            reply = self.answer(expression)
            self.assertEqual((reply.body, dict(reply.headers)["Content-Type"]), (body, "application/json"))

    def test_whether_run_failed(self) -> None:
        for expression, failed in (
            ("AMLResponse('', 200)", False),
            ("AMLResponse('', 400)", False),
            ("AMLResponse('', 500)", True),
            ("AMLResponse('', 200, run_function_failed=True)", True),
        ):
            with self.subTest(expression=expression):
                reply = self.answer(expression)
                self.assertEqual(reply.run_failed, failed)
                self.assertNotIn("x-ms-run-function-failed", [h[0].lower() for h in reply.headers])

    def test_parts_come_one_by_one_and_empty_ones_do_not(self) -> None:
        reply = self.answer("AMLResponse((p for p in ('', 'a', b'b')), 200)")
        self.assertEqual((reply.status, reply.body), (200, [b"a", b"b"]))

    def test_a_failure_before_the_first_part_is_an_answer(self) -> None:
        source = (
            HEAD
            + "def parts():\n    raise ValueError('x')\n    yield\ndef run(data):\n    return AMLResponse(parts(), 200)\n"
        )
        reply = self.run_script(source, lambda s: post(s, b""))
        self.assertEqual((reply.status, reply.run_failed, reply.exec_ms), (500, True, None))
        self.assertIn("ValueError: x", reply.traceback)

    def test_a_failure_between_parts_is_the_body_s(self) -> None:
        source = (
            HEAD
            + "def parts():\n    yield 'a'\n    raise ValueError('x')\ndef run(data):\n    return AMLResponse(parts(), 200)\n"
        )

        def work(service: object) -> object:
            reply = service.score("POST", b"", b"", b"", 0)
            parts = iter(reply.body)
            first = next(parts)
            try:
                next(parts)
            except ValueError:
                return reply.status, first, "raised"
            return reply.status, first, "went on"

        self.assertEqual(self.run_script(source, work), (200, b"a", "raised"))

    def test_a_body_that_is_given_up_is_closed(self) -> None:
        source = """
            from azureml_inference_server_http.api.aml_response import AMLResponse
            closed = []
            def init():
                pass
            def parts():
                try:
                    yield 'a'
                    yield 'b'
                finally:
                    closed.append(1)
            def run(data):
                return closed if data else AMLResponse(parts(), 200)
        """

        def work(service: object) -> object:
            reply = service.score("POST", b"", b"", b"", 0)
            next(iter(reply.body))
            before = post(service, b"?").body
            reply.body.close()
            reply.body.close()
            return before, post(service, b"?").body

        self.assertEqual(self.run_script(source, work), (b"[]", b"[1]"))

    def test_a_body_that_has_ended_is_closed(self) -> None:
        source = """
            from azureml_inference_server_http.api.aml_response import AMLResponse
            closed = []
            class Rows:
                def __init__(self):
                    self.rows = iter(["a", "b"])
                def __iter__(self):
                    return self
                def __next__(self):
                    return next(self.rows)
                def close(self):
                    closed.append(1)
            def init():
                pass
            def run(data):
                return closed if data else AMLResponse(Rows(), 200)
        """
        got = self.run_script(source, lambda s: (post(s, b"").body, post(s, b"?").body))
        self.assertEqual(got, ([b"a", b"b"], b"[1]"))

    def test_headers_of_a_response_can_be_changed(self) -> None:
        source = """
            from azureml_inference_server_http.api.aml_response import AMLResponse
            def init():
                pass
            def run(data):
                r = AMLResponse('a', 200)
                r.headers['X-A'] = 1
                r.headers['x-a'] = 2
                r.headers.add('X-B', 'b')
                r.status_code = 203
                assert 'x-b' in r.headers and r.headers.get('X-None', 0) == 0 and r.headers['x-b'] == 'b'
                return r
        """
        reply = self.run_script(source, lambda s: whole(s.score("POST", b"", b"", b"", 0)))
        self.assertEqual(reply.status, 203)
        self.assertEqual([v for k, v in reply.headers if k.lower() in ("x-a", "x-b")], ["2", "b"])


@needs("flask")
class WithFlask(Answers, Case):
    """The tests with responses of Flask's kind."""


@unittest.skipIf(
    has("azureml_inference_server_http"), "the real package is installed here, which needs Flask"
)
class WithoutFlask(Answers, Case):
    """The tests with the stand-in."""

    absent = ("flask",)
