"""Work for worker processes that does not go well."""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
import time

from mass_serve.sandbox.messages import Kind, Reply


def echo(data: memoryview, options: bytes) -> bytes:
    """Returns what it got."""
    return bytes(data) + options


def refuse(_data: memoryview, _options: bytes) -> bytes:
    raise ValueError("no\nthanks")


def crash(_data: memoryview, _options: bytes) -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def end(_data: memoryview, _options: bytes) -> bytes:
    os._exit(0)


def killed(_data: memoryview, _options: bytes) -> bytes:
    """Ends as the kernel's out-of-memory killer ends a process."""
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def spin(_data: memoryview, _options: bytes) -> bytes:
    while True:
        pass


def sleep(_data: memoryview, options: bytes) -> bytes:
    time.sleep(float(options or b"3600"))
    return b"slept"


def eat_memory(_data: memoryview, options: bytes) -> bytes:
    return bytes(bytearray(int(options)))[:0]


def open_files(_data: memoryview, _options: bytes) -> bytes:
    """Tells what may be opened, and the bounds."""
    words = []
    for action in (lambda: os.open("/etc/passwd", os.O_RDONLY), socket.socket, os.pipe):
        try:
            action()
        except OSError as error:
            words.append(error.strerror)
    limits = [resource.getrlimit(limit) for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)]
    return f"{words} {limits} {sorted(os.environ)}".encode()


def lie(data: memoryview, options: bytes) -> bytes:
    """Sends the reply that `options` names in place of its own to the job of the number in `data`."""
    number = data[0]
    replies = {
        b"nonsense": b"nonsense",
        b"long": b"x" * 8000,
        b"other": Reply(number + 1, Kind.DONE, 1).packed(),
        b"again": Reply(0, Kind.READY).packed(),
        b"larger": Reply(number, Kind.DONE, 1 << 40).packed(),
    }
    os.write(_control(), replies[options])
    time.sleep(3600)
    return b""


def too_much(_data: memoryview, _options: bytes) -> bytes:
    return bytes(1000)


_kept: list[bytes] = []
_times: list[bytes] = []


def keep(data: memoryview, options: bytes) -> bytes:
    """Keeps what it got, and so many bytes beside."""
    _times.append(bytes(data) + bytes(int(options)))
    _kept[:] = [bytes(data)]
    return b""


keep.keeps = True  # type: ignore[attr-defined]


def tell_kept(data: memoryview, _options: bytes) -> bytes:
    """Tells what it keeps, how often it was told to keep something, and who it is."""
    return b"%b %d %d %b" % (_kept[0], len(_times), os.getpid(), bytes(data))


def _control() -> int:
    return next(fd for fd in range(100) if _is_socket(fd))


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
