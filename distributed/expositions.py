"""What all replicas count, as they tell it, for one page for Prometheus.

Whoever is asked for `/metrics` behind a balancer is one of several, and any other the next time: counters
would jump. So each replica tells the board what it counts, and whoever is asked answers for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

TELL_SECONDS = 2.0
# A replica that has not told for so long has ended.
FORGET_SECONDS = 15.0


class Expositions:
    """The last exposition of every replica."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, tuple[float, str]] = {}

    def tell(self, replica: str, text: str) -> None:
        """Notes what a replica counts now."""
        self._told[replica] = (self._clock(), text)

    def forget(self, replica: str) -> None:
        """Drops a replica that ends."""
        self._told.pop(replica, None)

    @property
    def current(self) -> dict[str, str]:
        """Returns what replicas count, by their names."""
        oldest = self._clock() - FORGET_SECONDS
        self._told = {name: told for name, told in self._told.items() if told[0] >= oldest}
        return {name: text for name, (_, text) in self._told.items()}
