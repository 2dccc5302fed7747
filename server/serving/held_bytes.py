"""The memory that callers' bodies take, by what they become, and how much of it each caller may have.

A caller that holds little, up to an eighth of the bound, may fill it; one that holds more leaves an eighth
free for the others. So whoever holds all it can does not keep those out who need little.
"""

from __future__ import annotations

import threading

from mass_serve.server.errors import ClientGoneError, MemoryFullError, TooLargeError
from mass_serve.server.serving.request_context import RequestContext

# Of the bound: what counts as little, and what is kept for those that hold no more than that.
LITTLE = 1 / 8


class HeldBytes:
    """Counts bytes by request and by caller. Every method may be called from any thread."""

    def __init__(self, bound: int, largest_body: int) -> None:
        self._bound = bound
        self._little = int(bound * LITTLE)
        # Of one caller; a single body must fit whatever the settings are.
        self._most = max(bound - self._little, largest_body)
        self._by_caller: dict[str, int] = {}  # of those that hold any
        self._total = 0
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """The bytes that all requests hold."""
        return self._total

    def hold(self, nbytes: int, context: RequestContext) -> None:
        """Counts bytes that a request is about to take.

        Raises MemoryFullError where there is no room now, TooLargeError where there never is, and
        ClientGoneError where the request is over, which ends work that nobody waits for any more.
        """
        with self._lock:
            if context.over:
                raise ClientGoneError("The request was given up.")
            if context.held_bytes + nbytes > self._most:
                raise TooLargeError(
                    f"The body takes more than {self._most} bytes of memory with what it unpacks to, which is"
                    " the limit; send fewer or smaller inputs."
                )
            holder = context.holder or context.caller.name
            little = self._by_caller.get(holder, 0) + nbytes <= self._little
            if self._total + nbytes > (self._bound if little else self._most):
                raise MemoryFullError("The server is reading as much as its memory allows; try again.")
            context.holder = holder
            self._count(nbytes, holder, context)

    def release(self, context: RequestContext) -> None:
        """Gives back what a request holds, for good."""
        with self._lock:
            context.over = True
            if context.holder is not None:
                self._count(-context.held_bytes, context.holder, context)

    def _count(self, change: int, holder: str, context: RequestContext) -> None:
        context.held_bytes += change
        self._total += change
        held = self._by_caller.pop(holder, 0) + change
        if held:
            self._by_caller[holder] = held
