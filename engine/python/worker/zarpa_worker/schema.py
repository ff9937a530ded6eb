"""The decorators of inference-schema, as far as they concern the server. The package is used as it
is, and only where the script has imported it."""

from __future__ import annotations

import sys
from typing import Any, Callable, Dict, NamedTuple, Set

# The versions of descriptions, with the package's names for them.
VERSIONS = {"2": "2.0", "3": "3.0", "3.1": "3.1"}


class Described(NamedTuple):
    """What the decorators say of run(); versions are those that can express it."""

    input: Dict[str, Any]
    output: Dict[str, Any]
    versions: Set[str]


def decorated(run: Any) -> bool:
    """Whether run() has @input_schema or @output_schema."""
    util = sys.modules.get("inference_schema.schema_util")
    return util is not None and bool(util.is_schema_decorated(run))


def describe(run: Any) -> Described:
    """The schemas of run(), those of any object where it has no decorator."""
    if not decorated(run):
        anything = {"type": "object", "example": {}}
        return Described(anything, anything, set(VERSIONS))
    util = sys.modules["inference_schema.schema_util"]
    names = util.get_supported_versions(run)
    versions = {version for version, name in VERSIONS.items() if name in names}
    return Described(util.get_input_schema(run), util.get_output_schema(run), versions)


def convert(run: Any, arguments: Dict[str, Any]) -> Dict[str, Any]:
    """The arguments as the function beneath the decorators gets them, without calling it: each
    decorator is applied to a function that goes on to the next one.

    Errors: what the decorators raise for values that do not fit.
    """
    wrapper = getattr(run, "_self_wrapper", None)
    if wrapper is None or not getattr(wrapper, "__module__", "").startswith("inference_schema"):
        return arguments

    def beneath(**converted: Any) -> Dict[str, Any]:
        return convert(run.__wrapped__, converted)

    call: Callable[..., Dict[str, Any]] = wrapper
    return call(beneath, None, (), dict(arguments))
