"""Several requests in one call of the script's run_batch()."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from . import trouble
from .limit import Limit
from .reply import INTERNAL_ERROR, SCRIPT_ERROR, Refusal, Reply, error, from_value

# A request as the worker's loop has it: method, query, headers, body, timeout in milliseconds.
Asked = Tuple[str, bytes, bytes, Any, int]


class Batch:
    """Runs batches.

    A request that is refused does not enter one. When run_batch() raises and there were several
    inputs, each is tried by itself, so that only the requests concerned fail.
    """

    def __init__(self, run: Callable[[List[Any]], Any], read: Callable[[Asked], Any], limit: Limit) -> None:
        """read makes one input of a request and raises Refusal for one that is not to be run."""
        self._run = run
        self._read = read
        self._limit = limit

    def answer(self, requests: Sequence[Asked]) -> List[Reply]:
        """The answers, in the order of the requests."""
        replies: Dict[int, Reply] = {}
        inputs: List[Any] = []
        places: List[int] = []
        for at, request in enumerate(requests):
            try:
                inputs.append(self._read(request))
                places.append(at)
            except Refusal as refusal:
                replies[at] = refusal.reply
            except Exception as failure:
                replies[at] = error(500, INTERNAL_ERROR, False, trouble.trace(failure))
        if inputs:
            asked = [requests[at] for at in places]
            replies.update(zip(places, self._answer(inputs, asked)))
        return [replies[at] for at in range(len(requests))]

    def _answer(self, inputs: List[Any], requests: List[Asked]) -> List[Reply]:
        """The answers to inputs; alone when together failed."""
        limits = [request[4] for request in requests if request[4] > 0]
        shortest = min(limits) if limits else 0
        values, failed = self._call(inputs, shortest)
        if failed is None:
            took = self._limit.took
            return [_reply(value, took, request[0]) for value, request in zip(values, requests)]
        if len(inputs) == 1 or self._limit.reached:
            return [failed] * len(inputs)
        return [self._answer([one], [request])[0] for one, request in zip(inputs, requests)]

    def _call(self, inputs: List[Any], timeout_ms: int) -> Tuple[List[Any], Optional[Reply]]:
        self._limit.start(timeout_ms)
        try:
            try:
                values = self._run(inputs)
            finally:
                self._limit.stop()
            if not isinstance(values, (list, tuple)) or len(values) != len(inputs):
                what = (
                    "%d values" % len(values) if isinstance(values, (list, tuple)) else type(values).__name__
                )
                raise TypeError(
                    "run_batch() returned %s for %d inputs: return a list as long" % (what, len(inputs))
                )
        except TimeoutError as failure:
            reply = self._limit.exceeded(failure, timeout_ms) or error(500, SCRIPT_ERROR, True)
            return [], reply._replace(traceback=trouble.trace(failure))
        except BaseException as failure:
            return [], error(500, SCRIPT_ERROR, True, trouble.trace(failure))
        return list(values), None


def _reply(value: Any, took: float, method: str) -> Reply:
    """The answer for one value of run_batch(); an exception among them is that request's failure."""
    if isinstance(value, BaseException):
        return error(500, SCRIPT_ERROR, True, trouble.trace(value))
    try:
        return from_value(value, took, method)
    except Refusal as refusal:
        return refusal.reply
    except BaseException as failure:
        return error(500, INTERNAL_ERROR, False, trouble.trace(failure))
