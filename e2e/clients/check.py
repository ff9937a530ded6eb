"""A line for each check, and an exit code that tells whether one failed."""

import asyncio
import inspect
import sys
import traceback

CHECKS = []


def check(function):
    """Makes a function one of the checks; its name and first line of documentation are printed."""
    CHECKS.append(function)
    return function


def equal(got, want):
    """Wants two values to be the same, arrays bit by bit."""
    import numpy

    if isinstance(want, numpy.ndarray):
        assert isinstance(got, numpy.ndarray), f"no array: {got!r}"
        assert got.shape == want.shape, f"shape {got.shape}, want {want.shape}"
        assert got.dtype == want.dtype, f"dtype {got.dtype}, want {want.dtype}"
        same = got.tolist() == want.tolist() if want.dtype == object else got.tobytes() == want.tobytes()
        assert same, f"{got!r}, want {want!r}"
        return
    assert got == want, f"{got!r}, want {want!r}"


def refused(call, *words, kind=Exception):
    """Wants a call to raise an exception of a kind whose text has all of the words."""
    try:
        call()
    except kind as e:
        text = str(e)
        for word in words:
            assert word.lower() in text.lower(), f"the refusal has no {word!r}: {text}"
        return text
    raise AssertionError("it was taken")


def run(target):
    """Runs every check against the target, prints a line for each, and gives the exit code."""
    failed = 0
    for function in CHECKS:
        name = function.__module__.removeprefix("check_") + "." + function.__name__
        try:
            result = function(target)
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
        except Exception as e:  # whatever a client raises is a failed check
            failed += 1
            print(f"FAIL {name}: {type(e).__name__}: {' '.join(str(e).split())}", flush=True)
            traceback.print_exc(limit=-2, file=sys.stderr)
        else:
            print(f"ok   {name}" + (f": {result}" if result else ""), flush=True)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed", flush=True)
    return 1 if failed else 0
