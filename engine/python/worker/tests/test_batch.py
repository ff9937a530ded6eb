"""run_batch(): several requests at once."""

from __future__ import annotations

import json

from .apart import INIT, Case

RUN = INIT + "def run(data):\n    return 'single'\n"
ASKED = [("POST", b"", b"", memoryview(b"%d" % i), 0) for i in range(4)]


class Batches(Case):
    def answers(self, source: str, asked: object = ASKED) -> object:
        return self.run_script(RUN + source, lambda s: s.score_batch(asked))

    def test_a_script_opts_in_by_its_function(self) -> None:
        self.assertFalse(self.run_script(RUN, lambda s: s.batch))
        self.assertTrue(
            self.run_script(RUN + "def run_batch(inputs):\n    return inputs\n", lambda s: s.batch)
        )
        self.assertIn("one parameter", self.fails(RUN + "def run_batch(a, b):\n    return a\n").message)

    def test_headers_and_batches_exclude_each_other(self) -> None:
        source = INIT + "def run(data, request_headers):\n    pass\ndef run_batch(inputs):\n    return inputs\n"
        self.assertIn("request_headers", self.fails(source).message)

    def test_each_request_gets_its_value(self) -> None:
        replies = self.answers("def run_batch(inputs):\n    return [[i, len(inputs)] for i in inputs]\n")
        self.assertEqual([json.loads(r.body) for r in replies], [["0", 4], ["1", 4], ["2", 4], ["3", 4]])
        self.assertTrue(all(r.exec_ms > 0 for r in replies))

    def test_one_that_is_refused_stays_out(self) -> None:
        asked = [
            ASKED[0],
            ("POST", b"", b"", b"\xff", 0),
            ("OPTIONS", b"", b"", b"", 0),
            ("GET", b"a=1", b"", b"", 0),
        ]
        replies = self.answers("def run_batch(inputs):\n    return inputs\n", asked)
        self.assertEqual([r.status for r in replies], [200, 400, 200, 200])
        self.assertEqual(json.loads(replies[3].body), '{"a": 1}')

    def test_one_that_raises_fails_alone(self) -> None:
        replies = self.answers(
            "def run_batch(inputs):\n    if '2' in inputs:\n        raise ValueError(inputs)\n    return inputs\n"
        )
        self.assertEqual([r.status for r in replies], [200, 200, 500, 200])
        self.assertIn("ValueError: ['2']", replies[2].traceback)

    def test_values_may_be_exceptions_or_what_json_cannot_hold(self) -> None:
        replies = self.answers("def run_batch(inputs):\n    return [1, ValueError('x'), {2}, None]\n")
        self.assertEqual(
            [(r.status, r.run_failed) for r in replies],
            [(200, False), (500, True), (500, False), (200, False)],
        )
        self.assertEqual(replies[3].body, b"{}")

    def test_a_result_of_another_length_is_the_script_s_error(self) -> None:
        replies = self.answers("def run_batch(inputs):\n    return 5\n")
        self.assertEqual([r.status for r in replies], [500] * 4)
        self.assertIn("return a list as long", replies[0].traceback)

    def test_a_batch_at_its_limit_is_not_tried_again(self) -> None:
        source = """
            calls = []
            def init():
                pass
            def run(data):
                pass
            def run_batch(inputs):
                if inputs == ['?']:
                    return calls
                calls.append(len(inputs))
                while True:
                    pass
        """

        def work(service: object) -> object:
            replies = service.score_batch([(*r[:4], 0) for r in ASKED])
            return [r.status for r in replies], service.score_batch([("POST", b"", b"", b"?", 0)])[0].body

        statuses, calls = self.run_script(source, work, {"SCORING_TIMEOUT_MS": "50"})
        self.assertEqual((statuses, calls), ([500] * 4, b"4"))
