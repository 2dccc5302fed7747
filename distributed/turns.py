"""Whose turn it is to load: one replica after the other takes a new revision, past those that died."""

from __future__ import annotations

import time
from collections.abc import Callable

# Whoever has the turn says so again and again; one that has not for so long has died, or its machine has.
LEASE_SECONDS = 15.0


class Turns:
    """One turn, which one holder has at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._holder: str | None = None
        self._until = 0.0

    def take(self, holder: str) -> bool:
        """Takes the turn, or keeps it for longer. Returns whether it is the holder's."""
        now = self._clock()
        if self._holder not in (None, holder) and now < self._until:
            return False
        self._holder, self._until = holder, now + LEASE_SECONDS
        return True

    def give_back(self, holder: str) -> None:
        """Ends the turn of a holder that has it."""
        if self._holder == holder:
            self._holder = None
