"""Scripts whose run() takes a text."""

from __future__ import annotations

import json

from .apart import INIT, Case, post

ECHO = INIT + "def run(text):\n    return text\n"


class Plain(Case):
    def test_answers_with_the_json_of_what_run_returned(self) -> None:
        reply = self.run_script(ECHO, lambda s: post(s, "\u00e9 {}".encode()))
        self.assertEqual((reply.status, reply.body, reply.run_failed), (200, b'"\\u00e9 {}"', False))
        self.assertEqual(reply.headers, [("Content-Type", "application/json")])
        self.assertGreater(reply.exec_ms, 0)

    def test_none_is_an_empty_object(self) -> None:
        reply = self.run_script(INIT + "def run(data):\n    pass\n", lambda s: post(s, b""))
        self.assertEqual(reply.body, b"{}")

    def test_a_form_encoded_body_arrives_as_it_is(self) -> None:
        form = b"Content-Type: application/x-www-form-urlencoded\r\n"
        reply = self.run_script(ECHO, lambda s: post(s, b'{"data": 1}', form))
        self.assertEqual(json.loads(reply.body), '{"data": 1}')

    def test_bytes_that_are_no_text_are_refused(self) -> None:
        reply = self.run_script(ECHO, lambda s: post(s, b"\xff"))
        self.assertEqual((reply.status, reply.run_failed, reply.exec_ms), (400, False, None))
        self.assertIn("Input cannot be decoded as UTF-8: ", json.loads(reply.body)["message"])

    def test_a_query_is_a_json_text(self) -> None:
        for query, want in (
            (b"", {}),
            (b"a=1&b=[1,2]&c=a&d=null", {"a": 1, "b": [1, 2], "c": "a", "d": None}),
            (b"a=1&a=x&b=%FF%41&c=a+b&d", {"a": [1, "x"], "b": "%FFA", "c": "a b", "d": ""}),
            (b"a=\xff\xc3\xa9", {"a": "%FF\u00e9"}),
        ):
            with self.subTest(query=query):
                reply = self.run_script(ECHO, lambda s: s.score("GET", query, b"", b"", 0))
                self.assertEqual(json.loads(json.loads(reply.body)), want)

    def test_other_methods_do_not_reach_run(self) -> None:
        for method, status, allow in (
            ("OPTIONS", 200, None),
            ("HEAD", 405, "GET, OPTIONS, POST"),
            ("PUT", 405, "GET, HEAD, OPTIONS, POST"),
            ("TRACE", 405, "GET, HEAD, OPTIONS, POST"),
        ):
            with self.subTest(method=method):
                reply = self.run_script(ECHO, lambda s: s.score(method, b"", b"", b"", 0))
                self.assertEqual((reply.status, dict(reply.headers).get("Allow")), (status, allow))
                self.assertIsNone(reply.exec_ms)

    def test_an_exception_is_500_and_its_traceback_has_only_the_script(self) -> None:
        reply = self.run_script(INIT + "def run(data):\n    return data['x']\n", lambda s: post(s, b"secret"))
        self.assertEqual((reply.status, reply.run_failed, reply.exec_ms), (500, True, None))
        self.assertNotIn(b"secret", reply.body)
        self.assertIn("line 4, in run", reply.traceback)
        self.assertIn("TypeError", reply.traceback)
        self.assertNotIn("zarpa_worker/", reply.traceback)

    def test_an_exit_or_another_base_exception_is_500_too(self) -> None:
        for statement in ("import sys; sys.exit(0)", "raise KeyboardInterrupt", "raise BaseException('x')"):
            with self.subTest(statement=statement):
                reply = self.run_script(INIT + "def run(data):\n    %s\n" % statement, lambda s: post(s, b""))
                self.assertEqual((reply.status, reply.run_failed), (500, True))

    def test_what_json_cannot_hold_is_an_internal_error_that_the_log_explains(self) -> None:
        for value in ("{1}", "b'a'", "(i for i in [1])", "{(1, 2): 3}", "[object()]"):
            with self.subTest(value=value):
                reply = self.run_script(
                    INIT + "def run(data):\n    return %s\n" % value, lambda s: post(s, b"")
                )
                self.assertEqual((reply.status, reply.run_failed, reply.exec_ms), (500, False, None))
                self.assertIn(b"internal error", reply.body)
                self.assertIn("JSON cannot hold: return lists", reply.traceback)

    def test_the_headers_come_by_their_name(self) -> None:
        source = INIT + "def run(data, request_headers):\n    return request_headers\n"
        block = b"Host: h\r\nx-ms-id: a\r\nX-Two: 1\r\nx-two: 2\r\nX-Latin: \xe9\r\n"
        wants, reply = self.run_script(source, lambda s: (s.wants_headers, post(s, b"", block)))
        self.assertTrue(wants)
        self.assertEqual(
            json.loads(reply.body), {"Host": "h", "X-Ms-Id": "a", "X-Two": "1,2", "X-Latin": "\u00e9"}
        )

    def test_a_script_that_wants_no_headers_says_so(self) -> None:
        self.assertFalse(self.run_script(ECHO, lambda s: s.wants_headers))

    def test_code_and_working_directory_are_as_scripts_expect(self) -> None:
        source = """
            import os, sys
            def init():
                pass
            def run(data):
                names = ("AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT", "AZUREML_MODEL_DIR")
                return [os.getcwd(), [os.environ.get(n) for n in names], sys.path[0], __name__, sys.modules[__name__].run is run]
        """
        reply = self.run_script(source, lambda s: post(s, b""))
        want = [self.code, [self.code, "score.py", None], self.code, "entry_module", True]
        self.assertEqual(json.loads(reply.body), want)
