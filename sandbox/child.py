"""The side of a worker process: it gives up what it does not need, and then works until it is told no more.

It is started as a new interpreter with two descriptors, the control socket and the shared memory, and with
arguments that name the functions. Whatever it is made to do by the bytes that it works on, it can open no
file and no socket, and ends when its bounds or its parent do.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import mmap
import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence

from mass_serve.sandbox.messages import (
    MOST_MESSAGE,
    MOST_TAIL,
    Job,
    Kind,
    Reply,
    result_start,
)

Function = Callable[[memoryview, bytes], bytes | memoryview]
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
# The server's event loop goes first where both want a processor.
NICENESS = 5


def main(control: int, shared: int, shared_bytes: int, parent: int, functions: Sequence[str]) -> None:
    """Works for the process `parent`; each of `functions` is named as "module:function"."""
    _end_with(parent)
    os.nice(NICENESS)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # accepted requests are answered while the server drains
    channel = socket.socket(fileno=control)
    arena = memoryview(mmap.mmap(shared, shared_bytes))
    os.close(shared)
    known = [_imported(name) for name in functions]
    for function in known:
        _warm(function)
    memory = _Memory()
    _give_up_files()
    gc.collect()
    gc.freeze()
    channel.send(Reply(0, Kind.READY).packed())
    while message := channel.recv(MOST_MESSAGE):
        job = Job.unpacked(message)
        function = known[job.function]
        reply = _answer(job, function, arena, memory)
        if getattr(function, "keeps", False):
            memory.measure()
        channel.send(reply.packed())
        if reply.kind in (Kind.OVER_MEMORY, Kind.MEMORY_SHORT):
            return  # what is left of the work's memory is given back whole


def _end_with(parent: int) -> None:
    """Lets the kernel end this process with its parent, also where that is killed."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the parent has ended")


def _imported(name: str) -> Function:
    module, _, function = name.partition(":")
    found: Function = getattr(importlib.import_module(module), function)
    return found


def _warm(function: Function) -> None:
    """Lets a function do now what needs files: what it imports on first use."""
    warm = getattr(function, "warm", None)
    if warm is not None:
        warm()


def _give_up_files() -> None:
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 0)):
        resource.setrlimit(limit, (value, value))


class ResultTooLargeError(Exception):
    """A job made more of its input than its bounds allow."""


class _Memory:
    """The address space of this process: what it has, and what it may have beside while it works."""

    def __init__(self) -> None:
        """Reads what the process takes now, and what it inherited as the limit."""
        # It stays open: later none can be opened.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self.measure()
        self._given, _ = resource.getrlimit(resource.RLIMIT_AS)  # of whoever runs this server
        self._ours = self._given  # the limit as it was set here last

    def measure(self) -> None:
        """Counts what the process takes now as its own."""
        self._own = int(os.pread(self._statm, 100, 0).split()[0]) * mmap.PAGESIZE

    def allow(self, extra: int) -> Kind:
        """Sets the limit, and returns what it means when that does not suffice."""
        wanted, (soft, hard) = self._own + extra, resource.getrlimit(resource.RLIMIT_AS)
        if soft != self._ours:
            self._given = soft  # an operator may change it at any time
        if self._given != resource.RLIM_INFINITY and self._given <= wanted:
            resource.setrlimit(resource.RLIMIT_AS, (self._given, hard))
            self._ours = self._given
            return Kind.MEMORY_SHORT
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
        self._ours = wanted
        return Kind.OVER_MEMORY


def _answer(job: Job, function: Function, arena: memoryview, memory: _Memory) -> Reply:
    """Does the job within its bounds; the signal that comes when the time is up ends the process."""
    short_of = memory.allow(job.memory_bytes)
    signal.setitimer(signal.ITIMER_PROF, job.cpu_seconds)
    try:
        result = memoryview(function(arena[: job.input_bytes], job.options)).cast("B")
        if len(result) > job.result_bytes:
            raise ResultTooLargeError(f"the result has {len(result)} bytes, {job.result_bytes} are expected")
        start = result_start(job.input_bytes)
        arena[start : start + len(result)] = result
        return Reply(job.number, Kind.DONE, len(result))
    except MemoryError:
        return Reply(job.number, short_of)
    except Exception as error:
        return Reply(job.number, Kind.REFUSED, words=_words(error))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _words(error: Exception) -> bytes:
    text = f"{type(error).__name__}\n{error}".encode("utf-8", "replace")[:MOST_TAIL]
    return text.decode("utf-8", "ignore").encode()
