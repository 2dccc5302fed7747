"""A front end as a process: started, and killed where it hangs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

from mass_serve.server.fronts.beginning import SIGNALS, Beginning
from mass_serve.server.fronts.desk import Desk
from mass_serve.server.fronts.device import Device
from mass_serve.server.fronts.frames import Channel

# The interpreter is told where to find things: with `-m` a file of the working directory would be imported
# instead of a library of that name.
PROGRAM = """import gc, sys
gc.disable()
sys.path[:] = sys.argv[3:]
from mass_serve.server.fronts.front_end import start
start(*map(int, sys.argv[1:3]))"""
# An event loop tells that it turns once a second; before that, all is imported, which may take minutes.
SILENT_SECONDS = 10.0
START_SECONDS = 300.0


@dataclass(frozen=True)
class Child:
    """A front end that was started."""

    process: subprocess.Popen[bytes]
    desk: Desk
    started: float

    @classmethod
    def start(cls, device: Device, listener: socket.socket, beginning: Beginning) -> Child:
        """Starts a front end on a socket that listens. Raises OSError where the system has no room for it."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = _process(listener.fileno(), theirs.fileno())
            except OSError:
                ours.close()
                raise
        return cls(process, device.open_desk(Channel(ours), beginning), time.monotonic())

    def hangs(self, since: float) -> bool:
        """Tells whether it says no more that it lives, where this process has listened `since` then."""
        heard = self.desk.heard
        if heard is None:
            return time.monotonic() - max(self.started, since) > START_SECONDS
        return time.monotonic() - max(heard, since) > SILENT_SECONDS

    def kill(self) -> None:
        """Ends the process at once."""
        self.process.kill()
        self.process.wait()


def _process(*descriptors: int) -> subprocess.Popen[bytes]:
    path = [entry or os.getcwd() for entry in sys.path]
    # A service manager's signal to all processes ends none that has just begun: they are ignored once it can.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(
            (sys.executable, "-P", "-c", PROGRAM, *map(str, descriptors), *path),
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            process_group=0,  # ctrl-C is this process's alone
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
