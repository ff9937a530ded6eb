"""The script's own time limit, SCORING_TIMEOUT_MS.

The server ends a request after its limit by a SIGALRM, which the worker's handler raises in the
script. The script's limit comes as the same signal, from a timer; which one it was is told by the
clock.
"""

from __future__ import annotations

import signal
import threading
import time
from typing import Any, Optional

from .errors import TimeIsOver
from .reply import Reply, error

# What the clocks of timers and of the interpreter may differ by, in milliseconds.
_SLACK = 2.0


class Limit:
    """The limit of one script; used by one thread. took is how long the last call was, in
    milliseconds, and reached whether it ended at a limit."""

    def __init__(self, script_ms: int) -> None:
        """script_ms is the script's limit in milliseconds; 0 is none."""
        self._script_ms = script_ms
        self._armed = False
        self._began = 0.0
        self.took = 0.0
        self.reached = False

    def start(self, server_ms: int) -> None:
        """A call begins; server_ms is the server's limit, 0 for none. The timer is set only where
        the script's limit is the shorter one."""
        self.reached = False
        self._began = time.perf_counter()
        if self._first(server_ms):
            self._arm()

    def stop(self) -> None:
        """The call has ended."""
        self.took = (time.perf_counter() - self._began) * 1000
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._armed = False

    def exceeded(self, failure: TimeoutError, server_ms: int) -> Optional[Reply]:
        """The answer to a TimeoutError that ended the call; None for one of the script's own, which
        is an error like others."""
        if not isinstance(failure, TimeIsOver):
            return None
        self.reached = True
        took = (time.perf_counter() - self._began) * 1000 + _SLACK
        if self._first(server_ms) and took >= self._script_ms:
            return error(500, "Scoring timeout after %d ms" % self._script_ms, True)
        return error(504, "Scoring timeout after %d ms" % (server_ms or took), True)

    def _first(self, server_ms: int) -> bool:
        """Whether the script's limit comes before the server's."""
        return 0 < self._script_ms and (server_ms == 0 or self._script_ms < server_ms)

    def _arm(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # signals reach the main thread alone: the server's limit holds here
        if signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, signal.SIG_IGN, None):
            signal.signal(signal.SIGALRM, _expired)
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, self._script_ms / 1000)


def _expired(_signum: int, _frame: Any) -> None:
    raise TimeIsOver()
