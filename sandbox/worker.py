"""One worker process, as the pool sees it: started, given a job, and ended."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from mass_serve.sandbox.bounds import Reason
from mass_serve.sandbox.messages import MOST_MESSAGE, Buffer, Job

# The interpreter is told where to find things, for it is started without site and without an environment.
PROGRAM = """import sys
sys.path[:] = sys.argv[6:]
from mass_serve.sandbox.child import main
main(*map(int, sys.argv[1:5]), functions=sys.argv[5].split(","))"""
# Threads of libraries would be of no use to it, and each takes address space.
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "1",
    "LC_ALL": "C.UTF-8",
}
# Beyond it copies are made in pieces, and the memory is given back afterwards.
PIECE = 1 << 20
# Of what a process says that does not start.
MOST_WORDS = 1 << 16
# A process that was killed is gone at once, but for one that waits for a device.
LAST_SECONDS = 1.0
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Worker:
    """A process, its control socket, and the memory that it shares with this one."""

    def __init__(self, functions: Sequence[str], shared_bytes: int) -> None:
        """Starts the process; it is ready when it says so. Raises OSError where none can be started."""
        self.ready = False
        self.killed = False  # by us
        self.kept: str | None = None  # the name of the belonging that it has
        self._errors: int | None = None  # what it says while it starts
        self.shared_bytes = shared_bytes
        self.memory = os.memfd_create("mass-serve", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.memory, shared_bytes)
            fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, SEALS)
            self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except BaseException:
            os.close(self.memory)
            raise
        try:
            self._errors = os.memfd_create("mass-serve-errors", os.MFD_CLOEXEC)
            self.process = self._start(functions, theirs)
        except BaseException:
            self._close_descriptors()
            raise
        finally:
            theirs.close()
        self.channel.setblocking(False)

    def _start(self, functions: Sequence[str], theirs: socket.socket) -> subprocess.Popen[bytes]:
        numbers = (theirs.fileno(), self.memory, self.shared_bytes, os.getpid())
        path = [entry or os.getcwd() for entry in sys.path]
        return subprocess.Popen(
            (sys.executable, "-I", "-S", "-c", PROGRAM, *map(str, numbers), ",".join(functions), *path),
            pass_fds=(theirs.fileno(), self.memory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )

    def is_ready(self) -> None:
        """Notes that the process can work, and has no words for anybody any more."""
        self.ready = True
        self._forget_errors()

    def last_words(self) -> str:
        """Returns the last line that a process said which did not start."""
        said = b"" if self._errors is None else os.pread(self._errors, MOST_WORDS, 0)
        return (said.decode("utf-8", "replace").strip().splitlines() or [""])[-1]

    def tell(self, job: Job) -> None:
        """Sends a job, whose input lies in the shared memory. A process that has ended is heard to have."""
        with suppress(OSError):
            self.channel.send(job.packed())

    def hear(self) -> bytes:
        """Returns the next message; nothing where the process has ended. Raises BlockingIOError."""
        try:
            return self.channel.recv(MOST_MESSAGE + 1)
        except BlockingIOError:
            raise
        except OSError:
            return b""

    def write(self, data: Buffer, position: int) -> None:
        """Puts bytes into the shared memory."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.memory, view, position)
            view, position = view[written:], position + written

    def read(self, into: memoryview, position: int) -> None:
        """Takes bytes out of the shared memory. Raises OSError where they are not there."""
        while into:
            got = os.preadv(self.memory, [into], position)
            if not got:
                raise OSError("the shared memory has become shorter")
            into, position = into[got:], position + got

    def give_back(self, nbytes: int) -> None:
        """Gives the memory of a large job back. Raises OSError where there is no address space to do so."""
        with mmap.mmap(self.memory, min(nbytes, self.shared_bytes)) as mapped:
            mapped.madvise(mmap.MADV_REMOVE)

    def kill(self) -> None:
        """Ends the process at once."""
        self.killed = True
        with suppress(ProcessLookupError):
            self.process.kill()

    def end(self) -> Reason | None:
        """Returns why the process ended, if it did; its exit status is then taken."""
        status = self.process.poll()
        if status is None:
            return None
        if status == -signal.SIGPROF:
            return "cpu"
        # The kernel ends processes so where memory is short.
        return "memory" if status == -signal.SIGKILL and not self.killed else "crash"

    def close(self) -> None:
        """Ends the process, if it has not ended, and waits for that for a moment."""
        self.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_SECONDS)
        self._close_descriptors()

    def _forget_errors(self) -> None:
        if self._errors is not None:
            os.close(self._errors)
            self._errors = None

    def _close_descriptors(self) -> None:
        self._forget_errors()
        self.channel.close()
        if self.memory >= 0:
            os.close(self.memory)
            self.memory = -1
