"""Whether a process may be forked after it loaded: what a fork would break, it finds."""

from __future__ import annotations

import os
import signal
import stat
import sys
from typing import Dict, Optional, Set


class Before:
    """What the process had open before the script was loaded."""

    def __init__(self) -> None:
        self._open = open_files()

    def objection(self) -> Optional[str]:
        """Why the process must not be forked now, or None. The rules: a fork has one thread, so
        what other threads hold stays locked; descriptors are shared, so sockets, event loops,
        devices and positions in files are used by all at once; timers and children are not
        inherited."""
        if not sys.platform.startswith("linux"):
            return "only Linux tells what a fork would break"
        threads = len(os.listdir("/proc/self/task"))
        if threads > 1:
            return "it has %d threads" % threads
        if has_children():
            return "it has child processes"
        if signal.getitimer(signal.ITIMER_REAL)[0] > 0:
            return "a timer runs"
        mapped: Optional[Set[str]] = None
        for fd, target in open_files().items():
            if self._open.get(fd) == target:
                continue
            if mapped is None:
                mapped = mapped_files()
            why = shared_badly(fd, target, mapped)
            if why:
                return why
        return None


def has_children() -> bool:
    """Whether there are child processes; one that has ended and was not waited for is one."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def open_files() -> Dict[int, str]:
    """The descriptors of this process and what each is."""
    found: Dict[int, str] = {}
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return found
    for name in names:
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass  # the one of listdir itself
    return found


def mapped_files() -> Set[str]:
    """The paths of the files that are mapped into memory, where positions do not matter."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        return {line.rstrip("\n").split(None, 5)[5] for line in maps if "/" in line}


def shared_badly(fd: int, target: str, mapped: Set[str]) -> Optional[str]:
    """Why processes must not share a descriptor, or None."""
    if target.startswith("socket:"):
        return "it has an open socket (descriptor %d)" % fd
    if target.startswith("anon_inode:"):
        return "it has an open %s (descriptor %d): an event loop, or the like" % (target[11:], fd)
    if target.startswith("pipe:"):
        return "it has an open pipe (descriptor %d)" % fd
    try:
        info = os.fstat(fd)
    except OSError:
        return None
    if stat.S_ISCHR(info.st_mode):
        shared = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
        return None if target in shared else "it has the device %s open" % target
    if stat.S_ISREG(info.st_mode) and target not in mapped and not appends(fd):
        return "it has the file %s open, whose position would be shared" % target
    return None


def appends(fd: int) -> bool:
    """Whether every write to a descriptor goes to the end of its file, as in a log."""
    import fcntl

    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND)
