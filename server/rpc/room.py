"""How many calls may be open, and how many messages may be read at once, in all and of one caller.

    with room.call(caller):
        async with room.reading(caller):
            message = await rpc.read()

What gRPC has read of a message that is not there yet cannot be counted. Its size can be bounded, and so can
the number of messages that are read.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from mass_serve.server.errors import QueueFullError
from mass_serve.server.serving.caller import Caller

# Each may be as large as a body of HTTP.
MOST_READ = 32
MOST_READ_OF_ONE = MOST_READ // 4


class Room:
    """Belongs to one event loop."""

    def __init__(self, most_calls: int) -> None:
        """`most_calls` may be open, of which one caller may have half."""
        self._most_calls = most_calls
        self._most_of_one = max(1, most_calls // 2)
        self._calls: Counter[str] = Counter()
        self.open = 0
        self._places = asyncio.Semaphore(MOST_READ)
        # Of each caller that has calls open. Whoever waits for its own place takes none of the others'.
        self._own_places: dict[str, asyncio.Semaphore] = {}

    @contextmanager
    def call(self, caller: Caller) -> Iterator[None]:
        """Counts an open call. Raises QueueFullError where there are too many."""
        name = caller.name
        if self.open >= self._most_calls or self._calls[name] >= self._most_of_one:
            raise QueueFullError("Too many calls are open; wait for answers before you make more.")
        self.open += 1
        self._calls[name] += 1
        try:
            yield
        finally:
            self.open -= 1
            self._calls[name] -= 1
            if not self._calls[name]:
                del self._calls[name]
                self._own_places.pop(name, None)

    @asynccontextmanager
    async def reading(self, caller: Caller) -> AsyncIterator[None]:
        """Waits until one more message of a caller with an open call may be read."""
        own = self._own_places.setdefault(caller.name, asyncio.Semaphore(MOST_READ_OF_ONE))
        async with own, self._places:
            yield
