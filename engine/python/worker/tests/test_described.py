"""Descriptions, and pages of other origins."""

from __future__ import annotations

import json
import unittest

from zarpa_worker.cors import Cors, merge

from .apart import INIT, Case, post

RUN = INIT + "def run(data):\n    return data\n"


class Described(Case):
    def test_a_script_without_schemas_takes_any_object(self) -> None:
        described = self.run_script(RUN, lambda s: s.swagger())
        self.assertEqual(sorted(described), ["2", "3", "3.1"])
        two = json.loads(described["2"])
        self.assertEqual(two["definitions"]["ServiceInput"], {"type": "object", "example": {}})
        self.assertEqual(two["info"]["title"], "ML service")
        self.assertEqual(
            [op["operationId"] for p in two["paths"].values() for op in p.values()],
            ["ServiceHealthCheck", "RunMLService", "GetSwaggerSpec"],
        )

    def test_variables_name_the_service(self) -> None:
        names = {"SERVICE_NAME": 'iris "x"', "SERVICE_VERSION": "7", "SERVICE_PATH_PREFIX": "/a/b/"}
        described = self.run_script(RUN, lambda s: s.swagger(), names)
        for text in described.values():
            document = json.loads(text)
            self.assertEqual((document["info"]["title"], document["info"]["version"]), ('iris "x"', "7"))
            self.assertEqual(list(document["paths"]), ["/a/b/", "/a/b/score", "/a/b/swagger.json"])

    def test_files_of_the_user_s_own_come_first(self) -> None:
        self.write(
            {
                "code/swagger.json": '{"mine": 2}',
                "code/swagger2.json": '{"mine": 3}',
                "code/swagger3.1.json": '{"mine": 4}',
            }
        )
        described = self.run_script(RUN, lambda s: s.swagger())
        self.assertEqual((described["2"], described["3.1"]), ('{"mine": 2}', '{"mine": 4}'))
        self.assertIn("openapi", described["3"])


class Origins(unittest.TestCase):
    def test_who_may_call(self) -> None:
        for entries, origin, want in (
            ("*", "", [("Access-Control-Allow-Origin", "*")]),
            ("*", "https://a", [("Access-Control-Allow-Origin", "https://a"), ("Vary", "Origin")]),
            ("https://a", "https://A", [("Access-Control-Allow-Origin", "https://A")]),
            ("https://a", "https://b", []),
            ("https://b, https://a", "", [("Access-Control-Allow-Origin", "https://a"), ("Vary", "Origin")]),
            (
                "https://[a-z]+.org",
                "https://abc.org",
                [("Access-Control-Allow-Origin", "https://abc.org"), ("Vary", "Origin")],
            ),
            ("https://[a-z]+.org", "", []),
        ):
            with self.subTest(entries=entries, origin=origin):
                block = b"Origin: %s\r\n" % origin.encode() if origin else b""
                self.assertEqual(Cors(entries).headers("POST", block), want)

    def test_what_a_pre_flight_is_told(self) -> None:
        block = b"origin: https://a\r\nAccess-Control-Request-Method: %s\r\nAccess-Control-Request-Headers: x-b, x-a\r\n"
        told = dict(Cors("*").headers("OPTIONS", block % b"POST"))
        self.assertEqual(
            (told["Access-Control-Allow-Methods"], told["Access-Control-Allow-Headers"]),
            ("GET, POST", "x-a, x-b"),
        )
        self.assertNotIn("Access-Control-Allow-Methods", dict(Cors("*").headers("OPTIONS", block % b"PUT")))

    def test_headers_of_the_script_s_own_stay_alone(self) -> None:
        own = [("access-control-allow-origin", "https://mine")]
        self.assertEqual(merge(own, [("Access-Control-Allow-Origin", "*")]), own)


class Shared(Case):
    def test_answers_and_errors_have_the_headers(self) -> None:
        def work(service: object) -> object:
            block = b"Origin: https://a\r\n"
            return service.wants_headers, [
                dict(post(service, body, block).headers).get("Access-Control-Allow-Origin")
                for body in (b"x", b"\xff")
            ]

        got = self.run_script(RUN, work, {"AML_CORS_ORIGINS": "https://a"})
        self.assertEqual(got, (True, ["https://a", "https://a"]))
