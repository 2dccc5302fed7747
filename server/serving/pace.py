"""How fast the device, or the decoders, have been of late; and what sizes that are guessed turn out to be."""

from __future__ import annotations

# What a batch still counts for in the pace when one more has been answered.
PACE_MEMORY = 0.8


class Pace:
    """What a unit of work takes, `sum(w s) / sum(w n)` with w falling by `memory` with each observation."""

    def __init__(self, memory: float = PACE_MEMORY) -> None:
        self._memory = memory
        self._work = 0.0
        self._taken = 0.0

    def observe(self, work: float, taken: float) -> None:
        """Takes one more piece of work into account; those before it count for less and less."""
        self._work = self._memory * self._work + work
        self._taken = self._memory * self._taken + taken

    @property
    def per_unit(self) -> float:
        """The recent average; 0 before the first observation."""
        return self._taken / self._work if self._work else 0.0
