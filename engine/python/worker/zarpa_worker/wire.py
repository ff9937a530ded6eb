"""Frames: how a worker and the server talk over the data socket.

A frame is a head (payload length, kind, id), little endian, and its payload. The server asks one
thing at a time and waits for the answer, so what the socket holds belongs to one frame.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from typing import Any, List, NamedTuple, Optional, Tuple

# Kinds of frames to a worker.
SCORE, RUN, BATCH = 1, 2, 3
# Kinds of frames from a worker.
HELLO, RESULT, CHUNK, END, TENSORS, FAILED, LOADFAILED, BATCHED, TRACE = range(16, 25)

# Flags of a RESULT.
RUN_FAILED, NO_RUN_HEADERS, HAS_EXEC, STREAMED, REPLACE = 1, 2, 4, 8, 16

HEAD = struct.Struct("<IBxxxI")
SCORE_HEAD = struct.Struct("<IHHI")
RESULT_HEAD = struct.Struct("<HHId")
LENGTH = struct.Struct("<I")

# The buffer that is kept between requests; a larger frame gets memory of its own.
KEPT = 256 << 10
# The most that one frame holds: its length is 32 bits.
MOST = 0xFFFFFFFF
# Bodies up to this size are put behind their head in one piece: cheaper than a vector.
SMALL = 16 << 10


class Frame(NamedTuple):
    """A frame as it came. payload is memory of the channel: it is valid until the next frame,
    unless somebody still refers to it, in which case it stays as it is."""

    kind: int
    id: int
    payload: memoryview


class Request(NamedTuple):
    """The parts of a SCORE payload; body is a view of the channel's memory."""

    timeout_ms: int
    method: str
    query: bytes
    headers: bytes
    body: memoryview


class Channel:
    """One end of the data socket, for one thread."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._kept = bytearray(KEPT)
        # how many references there are while nobody else has a view of the buffer
        self._alone = sys.getrefcount(self._kept)

    def receive(self) -> Optional[Frame]:
        """Wait for the next frame; None when the server closed the socket."""
        if sys.getrefcount(self._kept) != self._alone:
            self._kept = bytearray(KEPT)  # the script kept a view of the last request
        room = self._kept
        have = self._fill(room, 0, HEAD.size)
        if have is None:
            return None
        length, kind, ident = HEAD.unpack_from(room)
        end = HEAD.size + length
        if end > len(room):
            larger = bytearray(end)
            larger[:have] = memoryview(room)[:have]
            room = larger
        if have < end and self._fill(room, have, end) is None:
            return None
        return Frame(kind, ident, memoryview(room)[HEAD.size : end])

    def _fill(self, room: bytearray, have: int, want: int) -> Optional[int]:
        """Read until room holds want bytes; the number that it holds then, None at the end."""
        if have == 0:
            have = self.socket.recv_into(room)
            if have == 0:
                return None
        view = memoryview(room)
        while have < want:
            n = self.socket.recv_into(view[have:])
            if n == 0:
                return None
            have += n
        return have

    def send(self, kind: int, ident: int, *parts: Any) -> None:
        """Send one frame, in one call to the system where it takes it; parts are bytes-like."""
        length = sum(map(len, parts))
        if length > MOST:
            raise OverflowError("the answer has %d bytes, a frame at most %d" % (length, MOST))
        head = HEAD.pack(length, kind, ident)
        if length <= SMALL:
            self.socket.sendall(b"".join((head, *parts)))
            return
        send_all(self.socket, [head, *parts])

    def send_json(self, kind: int, ident: int, value: Any) -> None:
        """Send a frame whose payload is JSON."""
        self.send(kind, ident, json.dumps(value).encode())


def send_all(sock: socket.socket, parts: List[Any]) -> None:
    """Send all parts, without copying them together."""
    views = [memoryview(p).cast("B") for p in parts if len(p)]
    while views:
        sent = sock.sendmsg(views[:64])
        while views and sent >= len(views[0]):
            sent -= len(views.pop(0))
        if sent:
            views[0] = views[0][sent:]


def parse_score(payload: memoryview) -> Request:
    """Take a SCORE payload apart."""
    timeout_ms, method_size, query_size, headers_size = SCORE_HEAD.unpack_from(payload)
    query = SCORE_HEAD.size + method_size
    headers = query + query_size
    body = headers + headers_size
    return Request(
        timeout_ms,
        str(payload[SCORE_HEAD.size : query], "latin-1"),
        bytes(payload[query:headers]),
        bytes(payload[headers:body]),
        payload[body:],
    )


def parse_batch(payload: memoryview) -> List[Request]:
    """Take a BATCH payload apart."""
    (count,) = LENGTH.unpack_from(payload)
    at, requests = LENGTH.size, []
    for _ in range(count):
        (size,) = LENGTH.unpack_from(payload, at)
        at += LENGTH.size
        requests.append(parse_score(payload[at : at + size]))
        at += size
    return requests


def result_head(reply: Any, flags: int) -> bytes:
    """The beginning of a RESULT payload, up to the body. A header that would break the block is
    an error of the script: ValueError."""
    if reply.run_failed is None:
        flags |= NO_RUN_HEADERS
    elif reply.run_failed:
        flags |= RUN_FAILED
    exec_ms = 0.0
    if reply.exec_ms is not None:
        flags |= HAS_EXEC
        exec_ms = reply.exec_ms
    block = header_block(reply.headers) if reply.headers else b""
    return RESULT_HEAD.pack(reply.status, flags, len(block), exec_ms) + block


def header_block(headers: List[Tuple[str, str]]) -> bytes:
    """Headers as the wire has them, in latin-1."""
    lines = []
    for name, value in headers:
        if "\r" in value or "\n" in value or "\r" in name or "\n" in name:
            raise ValueError("response header %r: a line break in it" % name)
        lines.append("%s: %s\r\n" % (name, value))
    return "".join(lines).encode("latin-1")
