"""Serves with several front ends: this process has the device, and they are its children.

ends_well = Supervisor(share_of(settings), device, listeners).run()

One that dies or hangs is started anew on the same socket, where connections wait meanwhile. Where the device
is lost, or none can be started, all of them end, and this process with them.
"""

from __future__ import annotations

import math
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

import structlog

from mass_serve.server.fronts.beginning import Beginning
from mass_serve.server.fronts.child import Child
from mass_serve.server.fronts.device import Device
from mass_serve.server.fronts.frames import Kind
from mass_serve.server.settings import Settings
from mass_serve.server.web.process import FAREWELL_SECONDS

TICK_SECONDS = 0.05
# After ticks so far apart, this process has stood still itself, and did not listen.
STOOD_STILL_SECONDS = 1.0
# After one that ended soon after its start, before the next try; twice as long after each that never served.
RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 60.0
YOUNG_SECONDS = 10.0
# Starts in a row of each front end without one that served, after which the service ends.
MOST_TRIES = 5
# What a front end takes to end beyond its farewell, once the device is lost, and beyond its drain.
END_SECONDS = 5.0

log = structlog.get_logger(__name__)


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
        self._vain_tries = dict.fromkeys(self._listeners, 0)  # starts since one served
        self._listens_since = self._last_tick = time.monotonic()
        self._stops = 0  # orders to stop that were given
        self._end_at = math.inf  # of whoever was told to stop
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
            self._kill_hanging()
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
                child.kill()

    def _is_over(self) -> bool:
        return self._has_failed() or (self._stops > 0 and not self._children)

    def _has_failed(self) -> bool:
        """Tells whether waiting cannot help: once the first load has failed, or the device is lost."""
        store = self._device.store
        cannot_load = store.engine is None and (store.failure is not None or store.hangs)
        return self._device.is_lost or cannot_load or self._none_starts()

    def _none_starts(self) -> bool:
        serves = any(child.desk.serves for child in self._children.values())
        return not serves and min(self._vain_tries.values()) >= MOST_TRIES

    def _start_missing(self) -> None:
        for name, listener in self._listeners.items():
            due = self._retry_at.get(name, 0.0) <= time.monotonic()
            if not self._stops and name not in self._children and due:
                self._start(name, listener)

    def _start(self, name: str, listener: socket.socket) -> None:
        beginning = Beginning(name, self._settings, joins=self._device.all_serve)
        try:
            self._children[name] = Child.start(self._device, listener, beginning)
        except OSError as error:
            log.error("a front end cannot be started", front_end=name, error=error.strerror)
            self._tried_in_vain(name)

    def _tried_in_vain(self, name: str) -> None:
        pause = min(RETRY_SECONDS * 2.0 ** self._vain_tries[name], LAST_RETRY_SECONDS)
        self._retry_at[name] = time.monotonic() + pause
        self._vain_tries[name] += 1
        if self._none_starts():
            log.error("no front end can be started", tries=MOST_TRIES)

    def _pass_orders_on(self) -> None:
        """Stops front ends, of which the first order closes the sockets here, too: they shall be refused."""
        while self._wanted_stops:
            with_grace = self._wanted_stops.pop(0) and not self._stops
            self._stops += 1
            for child in self._children.values():
                child.desk.tell(Kind.STOP, int(with_grace))
            for listener in self._listeners.values():
                listener.close()
            # Requests have their time, and then what is on the device.
            seconds = 2 * self._settings.request_timeout + END_SECONDS
            self._end_at = min(
                self._end_at, time.monotonic() + seconds + with_grace * self._settings.drain_seconds
            )

    def _kill_hanging(self) -> None:
        """Kills front ends that do not say that they live, and that do not end when they should."""
        now = time.monotonic()
        if now - self._last_tick > STOOD_STILL_SECONDS:
            self._listens_since = now
        self._last_tick = now
        for name, child in self._children.items():
            if child.hangs(self._listens_since) or now > self._end_at:
                log.error("a front end hangs, and is killed", front_end=name)
                child.kill()

    def _collect_ended(self) -> bool:
        """Forgets front ends that have ended. Returns False where one should not have."""
        ended = {name: child for name, child in self._children.items() if child.process.poll() is not None}
        expected = self._stops > 0 or self._has_failed()
        for name, child in ended.items():
            del self._children[name]
            self._device.close_desk(child.desk)
            if not expected:
                self._note_end(name, child)
        return not self._stops or all(child.process.returncode == 0 for child in ended.values())

    def _note_end(self, name: str, child: Child) -> None:
        """Says that one has ended that should not have, and settles when the next one starts."""
        log.error("a front end has ended, and is started anew", front_end=name, code=child.process.returncode)
        if not child.desk.serves:
            self._tried_in_vain(name)
            return
        self._vain_tries[name] = 0
        is_young = time.monotonic() - child.started < YOUNG_SECONDS
        self._retry_at[name] = time.monotonic() + (RETRY_SECONDS if is_young else 0.0)
