"""A stream of requests: several are under way at once, and are answered in the order in which they came.

await Stream(rpc, answer, admit, idle_timeout=75.0, closing=event).run()
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from grpc.aio import EOF, ServicerContext

from mass_serve.server.errors import DrainingError, ServiceError, SlowClientError

# Requests of one stream that are under way, or answered and not taken up. No more are read meanwhile: whoever
# sends faster than it is answered waits.
MOST_AHEAD = 8

T = TypeVar("T")


class Stream(Generic[T]):
    """Belongs to one call. `admit` makes room for a message, and `answer` answers what it returned."""

    def __init__(
        self,
        rpc: ServicerContext,
        admit: Callable[[bytes], Awaitable[T]],
        answer: Callable[[T], Coroutine[Any, Any, bytes]],
        idle_timeout: float,
        closing: asyncio.Event,
    ) -> None:
        self._rpc = rpc
        self._admit = admit
        self._answer = answer
        self._idle_timeout = idle_timeout
        self._closing = closing
        self._places = asyncio.Semaphore(MOST_AHEAD)
        self._answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()

    async def run(self) -> None:
        """Returns when the client has ended its side and has all answers.

        Raises SlowClientError after `idle_timeout` without a message, and DrainingError once `closing` is
        set, both when what was sent before is answered.
        """
        ended: ServiceError | None = None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write())
            try:
                while (message := await self._next()) is not None:
                    await self._places.acquire()
                    admitted = await self._admit(message)
                    self._answers.put_nowait(tasks.create_task(self._answer(admitted)))
            except ServiceError as error:
                ended = error
            self._answers.put_nowait(None)
        if ended is not None:
            raise ended

    async def _write(self) -> None:
        while (answer := await self._answers.get()) is not None:
            await self._rpc.write(await answer)
            self._places.release()

    async def _next(self) -> bytes | None:
        """Returns the next message, None at the end of all."""
        reading = asyncio.ensure_future(self._rpc.read())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait(
                (reading, closing), timeout=self._idle_timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if reading.done():
                message = reading.result()
                return None if message is EOF else message
            if closing.done():
                raise DrainingError("The server is shutting down; start a stream to another one.")
            raise SlowClientError(
                f"The stream had no message for {self._idle_timeout:g} seconds; start another one."
            )
        finally:
            reading.cancel()
            closing.cancel()
