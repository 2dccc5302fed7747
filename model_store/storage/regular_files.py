"""Regular files of this machine, opened once: the only way in which a store, a checkpoint or keys are read.

    with RegularFile.open(path) as file:
        digest = sha256_of(file)
        file.read_into(buffer, start=8)  # of the file that was hashed, whatever has its name by now

A FIFO or a device has no end, or lets nobody open it until somebody writes. Whoever can put one in place of a
file could hang a server so; it is refused here, without waiting for it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# More than any manifest, index or list of labels needs: they are held in memory as a whole.
LARGEST_TEXT_BYTES = 64 << 20
_CHUNK_BYTES = 8 << 20
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


@dataclass(frozen=True)
class FileState:
    """Which file it is, and what changes when somebody writes to it."""

    device: int
    inode: int
    size: int
    changed_at: int  # nanoseconds


class RegularFile:
    """One open descriptor of a regular file. Threads may read at once: there is no position to share.

    Its content stays readable when the path is removed or becomes another file. It is closed by `close`, at
    the end of a `with` block, or with the last reference.
    """

    def __init__(self, descriptor: int) -> None:
        """Takes over the descriptor of a file that is known to be a regular one."""
        self._descriptor = descriptor
        self._closing = weakref.finalize(self, os.close, descriptor)
        self.state = self._state()
        self.size = self.state.size

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens a file for reading. Raises OSError, also for what is no regular file."""
        return cls(open_regular(path, os.O_RDONLY))

    @property
    def permissions(self) -> int:
        """What its owner, its group and others may do with the file, as the bits of `stat`."""
        return stat.S_IMODE(os.fstat(self._descriptor).st_mode)

    def read_into(self, buffer: memoryview, start: int) -> None:
        """Fills a buffer with the bytes from `start` on. Raises EOFError where the file is shorter."""
        while buffer:
            # One call gives at most 2 GiB.
            count = os.preadv(self._descriptor, [buffer], start)
            if not count:
                raise EOFError("the file has become shorter")
            buffer, start = buffer[count:], start + count

    def read(self, start: int, count: int) -> bytes:
        """Returns `count` bytes from `start` on. Raises EOFError where the file is shorter."""
        content = bytearray(count)
        self.read_into(memoryview(content), start)
        return bytes(content)

    def read_text_bytes(self) -> bytes:
        """Returns the whole file. Raises OSError where it has more than LARGEST_TEXT_BYTES."""
        if self.size > LARGEST_TEXT_BYTES:
            raise too_large(self.size)
        return self.read(0, self.size)

    def chunks(self) -> Iterator[memoryview]:
        """Yields the whole file in parts, each of which is valid until the next one."""
        buffer, start = bytearray(_CHUNK_BYTES), 0
        while count := os.preadv(self._descriptor, [buffer], start):
            yield memoryview(buffer)[:count]
            start += count

    @property
    def is_as_it_was(self) -> bool:
        """Tells whether nobody has written to the file since it was opened."""
        return self.state == self._state()

    def _state(self) -> FileState:
        status = os.fstat(self._descriptor)
        return FileState(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def duplicate(self) -> int:
        """Returns another descriptor of the same open file, for a library that wants one of its own."""
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Closes the file; a second time does nothing."""
        self._closing()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_regular(path: Path, flags: int, mode: int = 0o666) -> int:
    """Opens a regular file and returns its descriptor, without waiting for anything else that is there.

    Raises OSError, whose text says what is there instead.
    """
    try:
        # Without O_NONBLOCK opening a FIFO waits until somebody opens its other end.
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, mode)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a FIFO opened for writing
            raise _not_regular(path, os.stat(path).st_mode) from error
        raise
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise _not_regular(path, kind)
    return descriptor


def read_text_file(path: Path) -> bytes:
    """Reads a small regular file whole. Raises OSError, also where it is large or no regular file."""
    with RegularFile.open(path) as file:
        return file.read_text_bytes()


def sha256_of(file: RegularFile) -> str:
    """Computes the SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return digest.hexdigest()


def too_large(size: int) -> OSError:
    """Makes the error of a file that is to be held in memory and is too large for it."""
    return OSError(errno.EFBIG, f"it has {size:,} bytes, at most {LARGEST_TEXT_BYTES:,} are read")


def _not_regular(path: Path, mode: int) -> OSError:
    kind = _KINDS.get(stat.S_IFMT(mode), "something else")
    return OSError(errno.EINVAL, f"it is {kind}, and only regular files are read", str(path))
