"""Serves with several front ends: this process has the device, and they are its children.

ends_well = Supervisor(share_of(settings), device, listeners).run()

One that dies is started anew on the same socket, where connections wait meanwhile. Where the device is lost,
all of them say so and end, and this process with them.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from mass_serve.server.fronts.beginning import Beginning
from mass_serve.server.fronts.desk import Desk
from mass_serve.server.fronts.device import Device
from mass_serve.server.fronts.frames import Channel, Kind
from mass_serve.server.settings import Settings
from mass_serve.server.web.process import FAREWELL_SECONDS

PROGRAM = "mass_serve.server.fronts.front_end"
TICK_SECONDS = 0.05
# After one that ended soon after its start, before the next try.
RETRY_SECONDS = 1.0
YOUNG_SECONDS = 10.0
# What a front end takes to end beyond its farewell, once the device is lost.
END_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Child:
    """A front end that was started."""

    process: subprocess.Popen[bytes]
    desk: Desk
    started: float


class Supervisor:
    """Keeps the front ends of a device. Its thread is the process's main one."""

    def __init__(self, settings: Settings, device: Device, listeners: Sequence[socket.socket]) -> None:
        """`settings` are those of each front end."""
        self._settings, self._device = settings, device
        self._listeners = dict(
            zip((f"front_end_{n + 1}" for n in range(len(listeners))), listeners, strict=True)
        )
        self._children: dict[str, Child] = {}
        self._retry_at: dict[str, float] = {}
        self._stops = 0  # orders to stop that were given
        self._wanted_stops: list[bool] = []  # those that signals ask for: whether there is a grace period

    def run(self) -> bool:
        """Serves until told to stop, or until nothing can be served. Returns whether all has ended well."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda sig, _: self._wanted_stops.append(sig == signal.SIGTERM))
        signal.signal(signal.SIGHUP, lambda *_: self._device.store.reload())
        ends_well = True
        while not self._is_over():
            self._start_missing()
            time.sleep(TICK_SECONDS)
            self._device.check()
            self._pass_orders_on()
            ends_well &= self._collect_ended()
        return ends_well and not self._has_failed()

    def end(self) -> None:
        """Has all front ends say that the device is lost, where any is left, and ends them."""
        for child in self._children.values():
            child.desk.tell(Kind.LOST)
        deadline = time.monotonic() + FAREWELL_SECONDS + END_SECONDS
        for child in self._children.values():
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    def _is_over(self) -> bool:
        return self._has_failed() or (self._stops > 0 and not self._children)

    def _has_failed(self) -> bool:
        """Tells whether waiting cannot help: once the first load has failed, or the device is lost."""
        store = self._device.store
        return self._device.is_lost or (store.engine is None and (store.failure is not None or store.hangs))

    def _start_missing(self) -> None:
        for name, listener in self._listeners.items():
            due = self._retry_at.get(name, 0.0) <= time.monotonic()
            if not self._stops and name not in self._children and due:
                self._children[name] = self._start(name, listener)

    def _start(self, name: str, listener: socket.socket) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = listener.fileno(), theirs.fileno()
            process = subprocess.Popen(
                (sys.executable, "-m", PROGRAM, *map(str, descriptors)),
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                process_group=0,  # ctrl-C is this process's alone
            )
        desk = self._device.open_desk(Channel(ours), name)
        desk.tell(Kind.BEGIN, 0, Beginning(name, self._settings, joins=self._device.all_serve))
        return Child(process, desk, time.monotonic())

    def _pass_orders_on(self) -> None:
        """Stops front ends, of which the first order closes the sockets here, too: they shall be refused."""
        while self._wanted_stops:
            with_grace = self._wanted_stops.pop(0)
            self._stops += 1
            for child in self._children.values():
                child.desk.tell(Kind.STOP, int(with_grace))
            for listener in self._listeners.values():
                listener.close()

    def _collect_ended(self) -> bool:
        """Forgets front ends that have ended. Returns False where one should not have."""
        ended = {name: child for name, child in self._children.items() if child.process.poll() is not None}
        for name, child in ended.items():
            del self._children[name]
            self._device.close_desk(child.desk)
            if not self._stops and not self._has_failed():
                log.error(
                    "a front end has ended, and is started anew",
                    front_end=name,
                    code=child.process.returncode,
                )
                is_young = time.monotonic() - child.started < YOUNG_SECONDS
                self._retry_at[name] = time.monotonic() + (RETRY_SECONDS if is_young else 0.0)
        return not self._stops or all(child.process.returncode == 0 for child in ended.values())
