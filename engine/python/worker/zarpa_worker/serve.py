"""The loop of a worker: one request after the other, each answered before the next is read."""

from __future__ import annotations

import signal
import sys
import traceback
from typing import Any, Dict, Optional

from . import wire
from .errors import TimeIsOver


class Interrupt:
    """The server's word that a request's time is over: a SIGALRM, which becomes a TimeoutError in
    the code of the script. Outside of that code it waits for the next piece of the same request
    and is dropped with its end. A script that takes SIGALRM for itself is left alone."""

    def __init__(self) -> None:
        self.inside = False
        self.pending = False

    def install(self) -> None:
        """Become the handler; in the main thread."""
        signal.signal(signal.SIGALRM, self._arrived)

    def _arrived(self, _signum: int, _frame: Any) -> None:
        if not self.inside:
            self.pending = True
            return
        self.inside = False
        raise TimeIsOver()

    def enter(self) -> None:
        """The script's code begins, or goes on."""
        self.inside = True
        if self.pending:
            self.inside = self.pending = False
            raise TimeIsOver()

    def leave(self) -> None:
        """The script's code has ended, or pauses."""
        self.inside = False

    def reset(self) -> None:
        """A request begins."""
        self.inside = self.pending = False


INTERRUPT = Interrupt()


def flush() -> None:
    """Hand on what was printed, so that the server finds it before the answer. What a script did
    to its streams is its own matter."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # closed, or not a stream: there is nothing to hand on
            pass


class Worker:
    """Answers frames with a service (a script) or a model, and owns neither."""

    def __init__(self, channel: wire.Channel, service: Any, model: Any) -> None:
        self.channel = channel
        self.service = service
        self.model = model

    def run(self) -> None:
        """Serve until the server closes the socket."""
        receive, interrupt = self.channel.receive, INTERRUPT
        handlers = {wire.SCORE: self._score, wire.BATCH: self._batch, wire.RUN: self._run}
        while True:
            frame = receive()
            if frame is None:
                return
            interrupt.reset()
            try:
                handlers[frame.kind](frame)
            except (BrokenPipeError, ConnectionResetError):
                return  # the server is gone
            finally:
                interrupt.leave()
            frame = None  # the channel's memory is free again

    def _score(self, frame: wire.Frame) -> None:
        request = wire.parse_score(frame.payload)
        try:
            INTERRUPT.enter()
            reply = self.service.score(
                request.method, request.query, request.headers, request.body, request.timeout_ms
            )
            INTERRUPT.leave()
            streamed = not isinstance(reply.body, (bytes, bytearray, memoryview, str))
            head = wire.result_head(reply, wire.STREAMED if streamed else 0)
        except BaseException as failure:
            self._failed(frame.id, failure)
            return
        self._trace(frame.id, reply)
        if streamed:
            self._stream(frame.id, head, reply.body)
            return
        flush()
        self.channel.send(wire.RESULT, frame.id, head, as_bytes(reply.body))

    def _stream(self, ident: int, head: bytes, body: Any) -> None:
        """Send the parts of a body as they come to be. The generator is closed in any case, so
        that what it holds is given back now and not when the collector finds it."""
        flush()
        self.channel.send(wire.RESULT, ident, head)
        end: Dict[str, str] = {}
        parts = iter(body)
        try:
            while True:
                INTERRUPT.enter()
                part = next(parts, None)
                INTERRUPT.leave()
                if part is None:
                    break
                if len(part):
                    flush()
                    self.channel.send(wire.CHUNK, ident, as_bytes(part))
        except (BrokenPipeError, ConnectionResetError):
            raise
        except BaseException as failure:
            INTERRUPT.leave()
            end = {"error": describe(failure), "traceback": trace_of(failure)}
        for closable in (parts, body):
            try:
                getattr(closable, "close", bool)()
            except Exception as failure:
                end.setdefault("error", describe(failure))
                end.setdefault("traceback", trace_of(failure))
        flush()
        self.channel.send_json(wire.END, ident, end)

    def _batch(self, frame: wire.Frame) -> None:
        requests = wire.parse_batch(frame.payload)
        try:
            INTERRUPT.enter()
            replies = self.service.score_batch([tuple(r)[1:] + (r.timeout_ms,) for r in requests])
            INTERRUPT.leave()
            if len(replies) != len(requests):
                raise ValueError("%d answers to %d requests" % (len(replies), len(requests)))
            parts = [wire.LENGTH.pack(len(replies))]
            for reply in replies:
                head, body = wire.result_head(reply, 0), whole(reply.body)
                parts += (wire.LENGTH.pack(len(head) + len(body)), head, body)
        except BaseException as failure:
            self._failed(frame.id, failure)
            return
        for item, reply in enumerate(replies):
            self._trace(frame.id, reply, item)
        flush()
        self.channel.send(wire.BATCHED, frame.id, *parts)

    def _run(self, frame: wire.Frame) -> None:
        from . import tensors  # numpy is loaded for models only

        try:
            inputs, wanted = tensors.decode(frame.payload)
            INTERRUPT.enter()
            outputs = self.model.run(inputs, wanted)
            INTERRUPT.leave()
            parts = tensors.encode(outputs)
        except BaseException as failure:
            self._failed(frame.id, failure)
            return
        flush()
        self.channel.send(wire.TENSORS, frame.id, *parts)

    def _trace(self, ident: int, reply: Any, item: int = 0) -> None:
        """Send the traceback of a failure that the answer does not show; item counts in a batch."""
        trace: Optional[str] = getattr(reply, "traceback", None)
        if trace:
            last = trace.rstrip().rpartition("\n")[2]
            text = {"message": last, "traceback": trace, "item": item}
            self.channel.send_json(wire.TRACE, ident, text)

    def _failed(self, ident: int, failure: BaseException) -> None:
        """Answer with what went wrong outside of what the script's contract has an answer for."""
        INTERRUPT.leave()
        from .errors import InvalidInput

        if isinstance(failure, InvalidInput):
            text = {"code": "invalid", "message": failure.message, "hint": failure.hint}
        else:
            text = {"code": "model_error", "message": describe(failure), "traceback": trace_of(failure)}
        flush()
        self.channel.send_json(wire.FAILED, ident, text)


def as_bytes(part: Any) -> Any:
    """A part of a body: text becomes UTF-8."""
    return part.encode() if isinstance(part, str) else part


def whole(body: Any) -> Any:
    """A body in one piece: in a batch, answers cannot come in parts."""
    if isinstance(body, (bytes, bytearray, memoryview, str)):
        return as_bytes(body)
    return b"".join(map(as_bytes, body))


def describe(failure: BaseException) -> str:
    """An exception in one line, as the interpreter writes it."""
    return "".join(traceback.format_exception_only(type(failure), failure)).strip()[:4096]


def trace_of(failure: BaseException) -> str:
    """An exception with where it came from, for the log."""
    lines = traceback.format_exception(type(failure), failure, failure.__traceback__)
    return "".join(lines)[-64 << 10 :]
