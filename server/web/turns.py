"""Turns of the event loop, shared among connections that have more to be handled than fits into one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

# Events of one connection in a row: half a millisecond of the loop's time.
EVENTS_AT_ONCE = 16
# Connections with more to handle that get one of those in each turn of the loop: 2 ms between two looks at
# the others.
CONNECTIONS_A_TURN = 4


class Waiting(Protocol):
    """Has more to handle than it was allowed to."""

    def go_on(self) -> None:
        """Handles as much as is allowed at once, and asks for another turn where that is not all."""


class Turns:
    """Lets those who wait go on in the order in which they came, a few in each turn of the loop."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self._scheduled = False

    def wait(self, connection: Waiting) -> None:
        """Puts a connection at the end of the line."""
        self._waiting.append(connection)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._let_some_go_on)

    def _let_some_go_on(self) -> None:
        self._scheduled = False
        loop = asyncio.get_running_loop()
        for _ in range(min(CONNECTIONS_A_TURN, len(self._waiting))):
            # One by one, so that an error of one stays its own.
            loop.call_soon(self._waiting.popleft().go_on)
        if self._waiting:
            self._schedule()
