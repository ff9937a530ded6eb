"""SCORING_TIMEOUT_MS, and TimeoutErrors that are not its own."""

from __future__ import annotations

import json
import signal

from zarpa_worker.errors import TimeIsOver

from .apart import INIT, Case, post

SPIN = INIT + "def run(data):\n    while data == 'spin':\n        pass\n    return data\n"


class Limits(Case):
    def test_the_script_s_limit_ends_run(self) -> None:
        first, second = self.run_script(
            SPIN, lambda s: (post(s, b"spin"), post(s, b"x")), {"SCORING_TIMEOUT_MS": "50"}
        )
        self.assertEqual(
            (first.status, first.body, first.run_failed),
            (500, b'{"message": "Scoring timeout after 50 ms"}', True),
        )
        self.assertIsNone(first.exec_ms)
        self.assertIn("line 4, in run", first.traceback)
        self.assertEqual(second.body, b'"x"')

    def test_the_server_s_limit_comes_as_its_signal(self) -> None:
        def work(service: object) -> object:
            def arrived(*_: object) -> None:
                raise TimeIsOver()

            signal.signal(signal.SIGALRM, arrived)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            return post(service, b"spin", b"", 50)

        reply = self.run_script(SPIN, work)
        self.assertEqual((reply.status, reply.run_failed), (504, True))

    def test_a_script_that_catches_it_sees_a_timeout_error(self) -> None:
        source = """
            def init():
                pass
            def run(data):
                try:
                    while True:
                        pass
                except Exception as failure:
                    return [type(failure).__name__, repr(failure), isinstance(failure, TimeoutError)]
        """
        reply = self.run_script(source, lambda s: post(s, b""), {"SCORING_TIMEOUT_MS": "50"})
        want = ["TimeoutError", 'TimeoutError("the request\'s time is over")', True]
        self.assertEqual((reply.status, json.loads(reply.body)), (200, want))

    def test_no_timer_is_left(self) -> None:
        def work(service: object) -> object:
            post(service, b"x")
            return signal.getitimer(signal.ITIMER_REAL)

        self.assertEqual(self.run_script(SPIN, work, {"SCORING_TIMEOUT_MS": "5000"}), (0.0, 0.0))

    def test_a_handler_of_the_script_s_own_stays(self) -> None:
        source = """
            import signal
            mine = lambda *_: None
            def init():
                signal.signal(signal.SIGALRM, mine)
            def run(data):
                return signal.getsignal(signal.SIGALRM) is mine
        """
        reply = self.run_script(source, lambda s: post(s, b"x"), {"SCORING_TIMEOUT_MS": "5000"})
        self.assertEqual(reply.body, b"true")

    def test_a_timeout_of_the_script_s_own_is_an_error_like_others(self) -> None:
        source = INIT + "import socket\ndef run(data):\n    raise socket.timeout('a database')\n"
        reply = self.run_script(source, lambda s: post(s, b"", b"", 60000))
        self.assertIn(b"scoring script", reply.body)
        self.assertIn("a database", reply.traceback)
