"""The errors that the parts of the worker tell each other."""

from __future__ import annotations


class LoadError(Exception):
    """A script or model that cannot be loaded; the worker reports it and ends with status 3.

    phase is "syntax", "import", "contract", "init" or "model"; message says what is wrong, hint
    what to do, traceback is for the log, and missing names a package that is not installed.
    """

    def __init__(
        self, phase: str, message: str, hint: str = "", traceback: str = "", missing: str = ""
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.message = message
        self.hint = hint
        self.traceback = traceback
        self.missing = missing


class InvalidInput(Exception):
    """An input that its caller must change; message names it, hint says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class TimeIsOver(TimeoutError):
    """A request's time is over: what the script gets in the middle of its work. Another
    TimeoutError is one of its own."""

    def __init__(self) -> None:
        super().__init__("the request's time is over")


# scripts and their logs name it by its type, and know it by this one
TimeIsOver.__name__ = TimeIsOver.__qualname__ = TimeoutError.__name__
TimeIsOver.__module__ = TimeoutError.__module__
