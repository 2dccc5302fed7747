"""A stream of requests: several are under way at once, and are answered in the order in which they came.

await Stream(rpc, admit, answer, idle_timeout=75.0, client_timeout=20.0, closing=event).run()
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
CLOSING = "The server is shutting down; start a stream to another one."

T = TypeVar("T")


class Stream(Generic[T]):
    """Belongs to one call. `admit` makes room for a message, and `answer` answers what it returned."""

    def __init__(
        self,
        rpc: ServicerContext,
        admit: Callable[[bytes], Awaitable[T]],
        answer: Callable[[T], Coroutine[Any, Any, bytes]],
        idle_timeout: float,
        client_timeout: float,
        closing: asyncio.Event,
    ) -> None:
        self._rpc = rpc
        self._admit = admit
        self._answer = answer
        self._idle_timeout = idle_timeout
        self._client_timeout = client_timeout
        self._closing = closing
        self._places = asyncio.Semaphore(MOST_AHEAD)
        self._answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()

    async def run(self) -> None:
        """Returns when the client has ended its side and has all answers.

        Raises SlowClientError after `idle_timeout` without a message, and DrainingError once `closing` is
        set, both when what was sent before is answered; SlowClientError at once where the client has not
        taken up an answer after `client_timeout`.
        """
        ended: ServiceError | None = None
        try:
            ended = await self._serve()
        except* SlowClientError as unread:
            ended = SlowClientError(*unread.exceptions[0].args)
        if ended is not None:
            raise ended

    async def _serve(self) -> ServiceError | None:
        """Answers what comes. Returns why no more was read, None where the client has ended its side."""
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
        return ended

    async def _write(self) -> None:
        while (answer := await self._answers.get()) is not None:
            writing = asyncio.ensure_future(self._rpc.write(await answer))
            try:
                await asyncio.wait((writing,), timeout=self._client_timeout)
                if not writing.done():
                    raise SlowClientError(
                        f"An answer was not taken up within {self._client_timeout:g} seconds; read faster."
                    )
                writing.result()
            finally:
                writing.cancel()
            self._places.release()

    async def _next(self) -> bytes | None:
        """Returns the next message, None at the end of all."""
        if self._closing.is_set():  # or whoever sends without a pause would be read for ever
            raise DrainingError(CLOSING)
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
                raise DrainingError(CLOSING)
            raise SlowClientError(
                f"The stream had no message for {self._idle_timeout:g} seconds; start another one."
            )
        finally:
            reading.cancel()
            closing.cancel()
