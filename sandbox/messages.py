"""What a pool and its worker processes say to each other: fixed headers, on a socket that keeps them whole.

The bytes of the work, and of its result, lie in memory that both share. Nothing is unpickled.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

# What a job works on.
Buffer = bytes | bytearray | memoryview

JOB = struct.Struct("<4sIHHQQQd")
REPLY = struct.Struct("<4sIHHQ")
JOB_MAGIC, REPLY_MAGIC = b"MSJ1", b"MSR1"
# Of a job's options, and of the words of a refusal.
MOST_TAIL = 2000
MOST_MESSAGE = max(JOB.size, REPLY.size) + MOST_TAIL
ALIGNED = 4096


class Kind(IntEnum):
    """Names what a reply says."""

    READY = 0  # the process has started
    DONE = 1  # the result is so long, and lies behind the input
    REFUSED = 2  # the work raised: the exception's name and its text follow
    OVER_MEMORY = 3  # the address space that the job may have did not suffice
    MEMORY_SHORT = 4  # nor did what the machine or the operator left


class WrongMessageError(Exception):
    """A message is none that the other side sends."""


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work, as the process is told of it."""

    number: int
    function: int  # as an index of the pool's functions
    options: bytes
    input_bytes: int
    result_bytes: int  # at most
    memory_bytes: int  # beside what the process has anyhow
    cpu_seconds: float

    def packed(self) -> bytes:
        """Returns the message."""
        head = self.number, self.function, len(self.options)
        sizes = self.input_bytes, self.result_bytes, self.memory_bytes
        return JOB.pack(JOB_MAGIC, *head, *sizes, self.cpu_seconds) + self.options

    @classmethod
    def unpacked(cls, message: bytes) -> Job:
        """Reads a message of `packed`."""
        _, number, function, length, given, result, memory, seconds = JOB.unpack_from(message)
        return cls(number, function, message[JOB.size : JOB.size + length], given, result, memory, seconds)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a process answers. Whoever reads it trusts none of it."""

    number: int
    kind: Kind
    result_bytes: int = 0
    words: bytes = b""

    def packed(self) -> bytes:
        """Returns the message."""
        words = self.words[:MOST_TAIL]
        return REPLY.pack(REPLY_MAGIC, self.number, self.kind, len(words), self.result_bytes) + words

    @classmethod
    def unpacked(cls, message: bytes) -> Reply:
        """Reads a message. Raises WrongMessageError for one that is not of `packed`."""
        if len(message) < REPLY.size:
            raise WrongMessageError("the message is too short")
        magic, number, kind, length, result = REPLY.unpack_from(message)
        if magic != REPLY_MAGIC or length != len(message) - REPLY.size or kind not in tuple(Kind):
            raise WrongMessageError("the message's header is wrong")
        return cls(number, Kind(kind), result, message[REPLY.size :])


def result_start(input_bytes: int) -> int:
    """Returns where in the shared memory a result begins."""
    return -(-input_bytes // ALIGNED) * ALIGNED
