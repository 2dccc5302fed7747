"""Turns of the event loop, shared among connections that have something to be handled.

Each begins or goes on with a request, of which the loop has a few milliseconds' work: who opens many
connections at once would keep all others waiting for as many. So a few connections have their turn at a time,
and the others wait, in the fair order of the addresses that they come from.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from mass_serve.server.serving.fair_queue import FairQueue, Turn

# Events of one connection in a row: half a millisecond of the loop's time.
EVENTS_AT_ONCE = 16
# Connections that get one of those in each turn of the loop: 2 ms between two looks at the others, and some
# more where requests begin.
CONNECTIONS_A_TURN = 4


class Waiting(Protocol):
    """Has something to handle."""

    def go_on(self) -> None:
        """Handles as much as is allowed at once, and asks for another turn where that is not all."""


class Turns:
    """Lets a few connections go on in each turn of the loop, and those that wait before those that come."""

    def __init__(self) -> None:
        self._waiting = FairQueue[Waiting](clock=time.monotonic)
        self._left = CONNECTIONS_A_TURN  # of this turn of the loop
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
        self._left = CONNECTIONS_A_TURN
        loop = asyncio.get_running_loop()
        for _, connection in self._waiting.take(CONNECTIONS_A_TURN):
            self._left -= 1
            # One by one, so that an error of one stays its own.
            loop.call_soon(connection.go_on)
        if self._left < CONNECTIONS_A_TURN:
            self._schedule()
