"""How many calls may be open, and how many messages may be read at once, in all and of one caller.

    with room.call(caller):  # and room.stream(caller) where it is one
        async with room.reading(caller):
            message = await rpc.read()

What gRPC has read of a message that is not there yet cannot be counted. Its size can be bounded, and so can
the number of messages that are read: of a stream always one, as it waits for the next, also of one that was
ended and whose client does not take up how.
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
MOST_STREAMS = 16
MOST_STREAMS_OF_ONE = MOST_STREAMS // 4


class Places:
    """So many in all, of which one caller may have some."""

    def __init__(self, most: int, most_of_one: int, full: str) -> None:
        """`full` is what whoever finds none is told."""
        self._most = most
        self._most_of_one = most_of_one
        self._full = full
        self._of: Counter[str] = Counter()
        self.taken = 0

    def has(self, caller: Caller) -> bool:
        """Tells whether a caller has any."""
        return caller.name in self._of

    @contextmanager
    def one(self, caller: Caller) -> Iterator[None]:
        """Takes one for as long as the block runs. Raises QueueFullError where there is none."""
        name = caller.name
        if self.taken >= self._most or self._of[name] >= self._most_of_one:
            raise QueueFullError(self._full)
        self.taken += 1
        self._of[name] += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._of[name] -= 1
            if not self._of[name]:
                del self._of[name]


class Room:
    """Belongs to one event loop."""

    def __init__(self, most_calls: int) -> None:
        """`most_calls` may be open, of which one caller may have half."""
        self._calls = Places(
            most_calls,
            max(1, most_calls // 2),
            "Too many calls are open; wait for answers before you make more.",
        )
        self._streams = Places(
            MOST_STREAMS, MOST_STREAMS_OF_ONE, "Too many streams are open; send more requests on one of them."
        )
        self._ended_streams = Places(
            MOST_STREAMS, MOST_STREAMS_OF_ONE, "Too many streams were ended whose answers are not taken up."
        )
        self._places = asyncio.Semaphore(MOST_READ)
        # Of each caller that has calls open. Whoever waits for its own place takes none of the others'.
        self._own_places: dict[str, asyncio.Semaphore] = {}

    @property
    def open(self) -> int:
        """How many calls are open, streams too."""
        return self._calls.taken

    @contextmanager
    def call(self, caller: Caller) -> Iterator[None]:
        """Counts an open call. Raises QueueFullError where there are too many."""
        try:
            with self._calls.one(caller):
                yield
        finally:
            if not self._calls.has(caller):
                self._own_places.pop(caller.name, None)

    @contextmanager
    def stream(self, caller: Caller) -> Iterator[None]:
        """Counts a stream that is served. Raises QueueFullError where there are too many."""
        with self._streams.one(caller):
            yield

    @contextmanager
    def ended_stream(self, caller: Caller) -> Iterator[None]:
        """Counts a stream that is served no more, and may have answers that its client does not take up.

        gRPC may still have a message of it that is not whole. Raises QueueFullError where there are too many.
        """
        with self._ended_streams.one(caller):
            yield

    @asynccontextmanager
    async def reading(self, caller: Caller) -> AsyncIterator[None]:
        """Waits until one more message of a caller with an open call may be read."""
        own = self._own_places.setdefault(caller.name, asyncio.Semaphore(MOST_READ_OF_ONE))
        async with own, self._places:
            yield
