"""Turns of the event loop, shared among connections that have something to be handled.

Each begins or goes on with a request, of which the loop has a few milliseconds' work: who opens many
connections at once would keep all others waiting for as many. So a few connections have their turn at a time,
and the others wait, in the fair order of the addresses that they come from.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from mass_serve.server.serving.fair_queue import FairQueue, Turn

# Events of one connection in a row: half a millisecond of the loop's time.
EVENTS_AT_ONCE = 16
# Connections that get one of those in each turn of the loop, at least: 2 ms between two looks at the others,
# and some more where requests begin.
CONNECTIONS_A_TURN = 4
MOST_CONNECTIONS_A_TURN = 64
# Processor seconds of a turn of the loop: after a shorter one there is place for twice as many connections in
# the next, after a longer one for half as many.
SHORT_TURN_SECONDS, LONG_TURN_SECONDS = 0.003, 0.006


class Waiting(Protocol):
    """Has something to handle."""

    def go_on(self) -> None:
        """Handles as much as is allowed at once, and asks for another turn where that is not all."""


class Turns:
    """Lets a few connections go on in each turn of the loop, and those that wait before those that come."""

    def __init__(self, processor_time: Callable[[], float] = time.thread_time) -> None:
        """`processor_time` gives the seconds that the loop's thread has computed for."""
        self._waiting = FairQueue[Waiting](clock=time.monotonic)
        self._processor_time = processor_time
        self._turn_began = processor_time()
        self._places = CONNECTIONS_A_TURN
        self._left = self._places  # of this turn of the loop
        self._scheduled = False

    def takes_one(self) -> bool:
        """Tells whether there is a place in this turn of the loop, and takes it."""
        if not self._left or len(self._waiting):
            return False
        self._left -= 1
        self._schedule()
        return True

    def wait(self, turn: Turn, connection: Waiting) -> None:
        """Lets a connection go on when it is its turn."""
        self._waiting.push(turn, connection, 1.0)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._scheduled = False
        self._left = self._places = self._places_now()
        loop = asyncio.get_running_loop()
        for _, connection in self._waiting.take(self._places):
            self._left -= 1
            # One by one, so that an error of one stays its own.
            loop.call_soon(connection.go_on)
        if self._left < self._places:
            self._schedule()

    def _places_now(self) -> int:
        """Returns how many places the turn that begins has, by the processor time of the one that ends."""
        now = self._processor_time()
        spent, self._turn_began = now - self._turn_began, now
        if spent > LONG_TURN_SECONDS:
            return max(CONNECTIONS_A_TURN, self._places // 2)
        if spent < SHORT_TURN_SECONDS and not self._left:
            return min(MOST_CONNECTIONS_A_TURN, 2 * self._places)
        return self._places
