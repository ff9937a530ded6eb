"""The life of the worker's processes: root, loader, zygote, worker."""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
from typing import Any, Dict, Tuple

from . import wire
from .errors import LoadError
from .nursery import Birth, Nursery, redirect
from .safety import Before
from .serve import INTERRUPT, Worker, describe, flush, trace_of

# The status of a process that could not load, as the scoring containers have it.
LOAD_FAILED = 3


def main() -> None:
    """Be the root, and in its forks what the server asked for."""
    control = socket.socket(fileno=3)
    control.set_inheritable(False)
    root_streams = os.dup(1), os.dup(2)
    birth = Nursery(control).run()
    INTERRUPT.install()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    channel = wire.Channel(birth.data)
    before = Before()
    try:
        service, model, hello = load(birth.message)
    except BaseException as failure:
        flush()
        report(channel, failure)
        os._exit(LOAD_FAILED)
    if birth.control is not None:
        birth = settle(birth, before, root_streams)
        channel = wire.Channel(birth.data)
    for fd in root_streams:
        os.close(fd)
    hello["pid"] = os.getpid()
    flush()
    channel.send_json(wire.HELLO, 0, hello)
    Worker(channel, service, model).run()


def settle(birth: Birth, before: Before, root_streams: Tuple[int, int]) -> Birth:
    """Become the zygote where that is safe or demanded. It returns in workers: in this process,
    or in forks of it."""
    gc.collect()  # what is garbage may hold descriptors
    assert birth.control is not None
    why = None if birth.message["preload"] == "always" else before.objection()
    verdict = {"event": "zygote"} if why is None else {"event": "unsafe", "why": why}
    birth.control.sendall(json.dumps(verdict).encode() + b"\n")
    if why is not None:
        birth.control.close()
        return birth._replace(control=None)
    out, err = os.dup(1), os.dup(2)
    flush()
    gc.freeze()  # collections in the forks leave its pages alone, so that they stay shared
    nursery = Nursery(birth.control)
    os.dup2(root_streams[0], 1)
    os.dup2(root_streams[1], 2)
    first = birth._replace(control=None)
    born = nursery.run(first)
    if born is first:
        redirect(out, err)
    return born


def load(message: Dict[str, Any]) -> Tuple[Any, Any, Dict[str, Any]]:
    """Load the script or the model that the server named, and describe it."""
    settings = message["settings"]
    if "code" in settings:
        from . import script

        service = script.load(settings)
        service.init()
        hello = {
            "kind": "script",
            "form": service.form,
            "headers": service.wants_headers,
            "batch": service.batch,
            "swagger": service.swagger(),
        }
        return service, None, hello
    from . import formats

    model = formats.load(settings["format"], settings["directory"], settings["file"])
    hello = {
        "kind": "model",
        "signature": model.signature,
        "framework": model.framework,
        "framework_version": model.framework_version,
        "notes": model.notes,
    }
    return None, model, hello


def report(channel: wire.Channel, failure: BaseException) -> None:
    """Tell the server why nothing was loaded."""
    if not isinstance(failure, LoadError):
        failure = LoadError("init", describe(failure), traceback=trace_of(failure))
    channel.send_json(
        wire.LOADFAILED,
        0,
        {
            "phase": failure.phase,
            "message": failure.message,
            "hint": failure.hint,
            "traceback": failure.traceback,
            "missing": failure.missing,
        },
    )
