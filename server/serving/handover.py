"""Results of other threads, brought to the event loop together.

    handover = Handover()
    answered = handover.future_of(ticket.future)

To wake the loop is a system call, during which the thread that has the results loses the interpreter: for
each answer of a batch by itself it took as long as answering did.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Handover:
    """Belongs to one event loop, or to one after the other; results may come from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._here: list[Callable[[], None]] = []  # what the loop has yet to do

    def future_of(self, source: Future[T]) -> asyncio.Future[T]:
        """Returns a future of the running loop that ends as `source` does; cancelling it leaves that."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def done(ended: Future[T]) -> None:
            with self._lock:
                self._here.append(lambda: _copy(ended, result))
                is_first = len(self._here) == 1
            if is_first:
                try:
                    loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed, and nobody there waits any more
                    with self._lock:
                        self._here.clear()

        source.add_done_callback(done)
        return result

    def _deliver(self) -> None:
        with self._lock:
            delivered, self._here = self._here, []
        for copy in delivered:
            copy()


def _copy(ended: Future[T], result: asyncio.Future[T]) -> None:
    if result.done():
        return
    if ended.cancelled():
        result.cancel()
    elif (error := ended.exception()) is not None:
        result.set_exception(error)
    else:
        result.set_result(ended.result())
