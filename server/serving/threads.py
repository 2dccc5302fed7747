"""Threads for work that would hold the event loop up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import Any, ParamSpec, TypeVar

from mass_serve.server.serving.fair_queue import FairQueue, Turn

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A pool of its own, and not asyncio's, which is waited for at the end however long its work takes.

    Its threads are started at once: later the system may have none left. Work goes to a thread that is free,
    and waits for one in fair order, as a coroutine, which leaves at once, with all that it holds, when it is
    cancelled.
    """

    def __init__(self, count: int, name: str) -> None:
        """Starts the threads. Raises RuntimeError where the system has not so many."""
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._free = count
        self._waiting = FairQueue[asyncio.Future[None]](clock=time.monotonic)
        self._began: dict[Future[Any], float] = {}
        all_started = Barrier(count + 1)
        try:
            for _ in range(count):
                self._pool.submit(all_started.wait)
        except RuntimeError:
            all_started.abort()
            raise
        all_started.wait()

    async def run(
        self, turn: Turn, cost: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `work` and returns its result. Cancelled, it does not start; begun, it cannot be stopped.

        `cost` is what it should take, in any unit that is the same for all that these threads do.
        """
        await self._take_thread(turn, cost)
        try:
            future = self._pool.submit(work, *args, **kwargs)
        except BaseException:
            self._give_back()
            raise
        self._began[future] = time.monotonic()
        future.add_done_callback(lambda done: self._began.pop(done, None))
        try:
            result = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            loop = asyncio.get_running_loop()
            future.add_done_callback(lambda _: self._release_from_thread(loop))
            raise
        except BaseException:
            self._give_back()
            raise
        self._give_back()
        return result

    async def _take_thread(self, turn: Turn, cost: float) -> None:
        """Waits until a thread is free and it is this request's turn."""
        if self._free:
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.push(turn, place, cost)
        try:
            await place
        except asyncio.CancelledError:
            if not self._waiting.remove(turn, place) and not place.cancelled():
                self._give_back()  # the thread came at the same moment
            raise

    def _give_back(self) -> None:
        """Hands a thread to whose turn it is, past those who are leaving at this moment."""
        while (taken := self._waiting.pop()) is not None:
            if not taken[1].done():
                taken[1].set_result(None)
                return
        self._free += 1

    def _release_from_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(self._give_back)

    @property
    def busy(self) -> bool:
        """Tells whether a thread is at work."""
        return any(future.running() for future in self._began.copy())

    @property
    def oldest_seconds(self) -> float:
        """The age of the oldest piece of work that a thread is at; 0 without one."""
        began = list(self._began.copy().values())
        return time.monotonic() - min(began) if began else 0.0

    def close(self) -> None:
        """Drops what waits, as if it were cancelled; what runs is not waited for."""
        for _, place in self._waiting.take(len(self._waiting)):
            place.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
