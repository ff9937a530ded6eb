"""Pages of other origins: what AML_CORS_ORIGINS lets call /score, as Flask-CORS answers it."""

from __future__ import annotations

import re
from typing import Optional

from .errors import LoadError
from .inputs import pairs
from .reply import Headers

# Characters that make an entry an expression instead of an origin.
_EXPRESSION = frozenset("*\\]?$^[]()")
_METHODS = ("GET", "POST")


class Cors:
    """The origins that may call, from a list with commas: *, origins, and expressions, which match
    from an origin's beginning, in any case."""

    def __init__(self, entries: str) -> None:
        """Errors: LoadError "contract" for an expression that is none."""
        listed = [entry.strip() for entry in entries.split(",")]
        self._any = "*" in listed
        self._literal = sorted(e for e in listed if _EXPRESSION.isdisjoint(e))
        self._expressions = [_compile(e) for e in listed if not _EXPRESSION.isdisjoint(e)]
        self._several = len(listed) > 1 or bool(self._expressions)

    def headers(self, method: str, block: bytes) -> Headers:
        """The headers that an answer gets, for a request's method and headers."""
        sent = {name.lower(): value for name, value in pairs(block)}
        allowed = self._allowed(sent.get("origin", ""))
        if allowed is None:
            return []
        answer = [("Access-Control-Allow-Origin", allowed)]
        if sent.get("access-control-request-private-network") == "true":
            answer.append(("Access-Control-Allow-Private-Network", "false"))
        if method == "OPTIONS" and sent.get("access-control-request-method", "").upper() in _METHODS:
            wanted = sent.get("access-control-request-headers", "")
            if wanted:
                names = ", ".join(sorted(name.strip() for name in wanted.split(",")))
                answer.append(("Access-Control-Allow-Headers", names))
            answer.append(("Access-Control-Allow-Methods", ", ".join(_METHODS)))
        if allowed != "*" and self._several:
            answer.append(("Vary", "Origin"))
        return answer

    def _allowed(self, origin: str) -> Optional[str]:
        if not origin:
            return "*" if self._any else next(iter(self._literal), None)
        folded = origin.casefold()
        if any(folded == entry.casefold() for entry in self._literal):
            return origin
        return origin if any(e.match(origin) for e in self._expressions) else None


def _compile(entry: str) -> "re.Pattern[str]":
    try:
        return re.compile(".*" if entry == "*" else entry, re.IGNORECASE)
    except re.error as failure:
        raise LoadError(
            "contract",
            "AML_CORS_ORIGINS: %s: %s" % (entry, failure),
            "list origins such as https://app.example.com, *, or regular expressions, with commas",
        ) from failure


def merge(headers: Headers, added: Headers) -> Headers:
    """Headers with those of CORS. A script that wrote its own keeps them."""
    if any(name.lower() == "access-control-allow-origin" for name, _ in headers):
        return headers
    return headers + added
