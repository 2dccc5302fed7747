"""Messages between a front end and the device's process: a head and a body, on a socket that both inherit.

channel.send(Kind.BATCH, 7, *packed(queries, handle=1))
frame = channel.receive()  # None once the other side has closed
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

HEAD = struct.Struct("<4sIQQ")  # magic, kind, number, bytes of the body
MAGIC = b"MSF1"
# No batch has so many; a front end that says so is not believed.
MOST_BODY_BYTES = 1 << 30


# What a body is made of.
Part = bytes | bytearray | memoryview


class Kind(IntEnum):
    """Names what a message says."""

    # From a front end. Those that ask have a number, which the answer has, too.
    LOAD = 1  # asks for an engine's description: the newest, or one with other tasks
    BATCH = 2  # asks for a report of queries
    SCRAPE = 3  # asks for the metrics of all processes
    PREFETCH = 4  # names tasks that are about to be asked
    FORGET = 5  # an engine is not asked any more
    SERVES = 6  # the engine of that number has taken over
    RENDERED = 7  # the metrics of this process, as it was asked for
    ALIVE = 8  # its event loop turns

    # From the device's process.
    BEGIN = 20  # what the front end needs to start
    ANSWER = 21  # a result, or an error
    NEWS = 22  # another engine serves, or why none can
    RENDER = 23  # asks for the metrics of this process
    STOP = 24  # drain, and end; with the number 1 after the grace period
    ALL_SERVE = 25  # every front end has an engine
    LOST = 26  # the device is gone for good


class WrongFrameError(Exception):
    """What came is no message of the other side."""


@dataclass(frozen=True)
class Frame:
    """One message."""

    kind: Kind
    number: int
    body: bytearray


class Channel:
    """One end of the socket. One thread sends, and one receives."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def send(self, kind: Kind, number: int = 0, *parts: Part) -> None:
        """Sends a message whose body is all of the parts. Raises OSError where nobody reads any more."""
        views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
        self._socket.sendall(HEAD.pack(MAGIC, kind, number, sum(view.nbytes for view in views)))
        for view in views:
            self._socket.sendall(view)

    def receive(self) -> Frame | None:
        """Waits for a message; None once there will be none. Raises WrongFrameError."""
        head = self._read(HEAD.size)
        if head is None:
            return None
        magic, kind, number, length = HEAD.unpack(head)
        if magic != MAGIC or kind not in tuple(Kind) or length > MOST_BODY_BYTES:
            raise WrongFrameError("the head of a message is wrong")
        body = self._read(length)
        return None if body is None else Frame(Kind(kind), number, body)

    def close(self) -> None:
        """Gives the socket back; nobody may be using it any more."""
        self._socket.close()

    def hang_up(self) -> None:
        """Ends the connection for both sides, and wakes who receives."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other side was quicker
            return

    def _read(self, length: int) -> bytearray | None:
        found = bytearray(length)
        view, place = memoryview(found), 0
        while place < length:
            try:
                count = self._socket.recv_into(view[place:])
            except ConnectionError:
                return None
            if not count:
                return None
            place += count
        return found
