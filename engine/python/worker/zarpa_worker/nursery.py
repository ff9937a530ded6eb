"""Making workers: a process that forks on the server's word, and tells of the ends of its children.

Two processes are nurseries. The root is started by the server and runs no code of the script, so
it is safe to fork at any time. The zygote is the worker that loaded first, where the script left
nothing that a fork would break: what it forks shares its memory.

The control socket carries lines of JSON. From the server, with the file descriptors "fds" says:
  {"do":"start","worker":1,"fds":3,...}  fork; fds: data socket, stdout, stderr[, a control socket]
  {"do":"signal","worker":1,"signal":9}  signal it, unless it has ended
To the server: {"event":"started","worker","pid"}, {"event":"signalled","worker"},
{"event":"exited","worker","status"} (negative: the signal), {"event":"failed","worker","error"}.
The end of the control socket is the end of the server: everything in the process group is killed.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
from typing import Any, Dict, List, NamedTuple, Optional


class Birth(NamedTuple):
    """What a new worker got from the server."""

    message: Dict[str, Any]
    data: socket.socket
    control: Optional[socket.socket]


class Nursery:
    """Forks workers until its control socket ends; one thread."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: Dict[int, int] = {}  # pid -> worker
        self._text = b""
        self._fds: List[int] = []
        # SIGCHLD wakes the wait for messages; the script's own handling of it comes back in forks
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._waker, False)
        self._handler = signal.signal(signal.SIGCHLD, lambda *_: None)
        self._wakeup = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def run(self, first: Optional[Birth] = None) -> Birth:
        """Fork on demand. It returns in each child, and never in the nursery itself. first is a
        worker whose descriptors are there already."""
        if first is not None and self._fork(first.message["worker"]):
            return self._born(first)
        if first is not None:
            first.data.close()
        while True:
            select.select([self._control, self._wake], [], [])
            self._reap()
            for message in self._receive():
                birth = self._obey(message)
                if birth is not None:
                    return birth

    def tell(self, **event: Any) -> None:
        """Send an event; the server's end of the socket may be gone."""
        try:
            self._control.sendall(json.dumps(event).encode() + b"\n")
        except OSError:
            end_group()

    def _receive(self) -> List[Dict[str, Any]]:
        try:
            text, ancillary, _, _ = self._control.recvmsg(
                64 << 10, socket.CMSG_SPACE(16 * array.array("i").itemsize), socket.MSG_DONTWAIT
            )
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            text, ancillary = b"", []
        if not text:
            end_group()
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                self._fds.extend(fds)
        *lines, self._text = (self._text + text).split(b"\n")
        return [json.loads(line) for line in lines]

    def _obey(self, message: Dict[str, Any]) -> Optional[Birth]:
        worker = message["worker"]
        if message["do"] == "start":
            count = message["fds"]
            fds, self._fds = self._fds[:count], self._fds[count:]
            for fd in fds:
                os.set_inheritable(fd, False)
            if self._fork(worker):
                redirect(fds[1], fds[2])
                control = socket.socket(fileno=fds[3]) if count > 3 else None
                return self._born(Birth(message, socket.socket(fileno=fds[0]), control))
            for fd in fds:
                os.close(fd)
        elif message["do"] == "signal":
            for pid, name in self._children.items():
                if name == worker:
                    os.kill(pid, message["signal"])
            self.tell(event="signalled", worker=worker)
        return None

    def _fork(self, worker: int) -> bool:
        """Fork; true in the child."""
        try:
            pid = os.fork()
        except OSError as failure:
            self.tell(event="failed", worker=worker, error="fork: %s" % failure)
            return False
        if pid == 0:
            return True
        self._children[pid] = worker
        self.tell(event="started", worker=worker, pid=pid)
        return False

    def _born(self, birth: Birth) -> Birth:
        """Leave what is the nursery's; in the child."""
        signal.set_wakeup_fd(self._wakeup)
        if self._handler is not None:
            signal.signal(signal.SIGCHLD, self._handler)
        os.close(self._wake)
        os.close(self._waker)
        self._control.close()
        for fd in self._fds:
            os.close(fd)
        return birth

    def _reap(self) -> None:
        try:
            os.read(self._wake, 4096)
        except BlockingIOError:
            return
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._children.pop(pid, None)
            if worker is not None:
                code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                self.tell(event="exited", worker=worker, status=code)


def redirect(out: int, err: int) -> None:
    """Make two descriptors the standard output and error, for this process and what it starts."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)


def end_group() -> None:
    """The server is gone: end every process below it, this one included."""
    os.killpg(0, signal.SIGKILL)
