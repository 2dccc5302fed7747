"""Threads for work that would hold the event loop up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A pool of its own, and not asyncio's, which is waited for at the end however long its work takes."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._open: dict[Future[Any], float] = {}  # since when, by `time.monotonic`

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` and returns its result. Cancelled, it does not start; begun, it cannot be stopped."""
        future = self._pool.submit(work, *args, **kwargs)
        self._open[future] = time.monotonic()
        future.add_done_callback(self._forget)
        return await asyncio.wrap_future(future)

    @property
    def busy(self) -> bool:
        """Tells whether a thread is at work."""
        return any(future.running() for future in self._open.copy())

    @property
    def oldest_seconds(self) -> float:
        """The age of the oldest work that waits or runs; 0 where there is none."""
        since = min(self._open.copy().values(), default=None)
        return 0.0 if since is None else time.monotonic() - since

    def _forget(self, future: Future[Any]) -> None:
        self._open.pop(future, None)

    def close(self) -> None:
        """Drops what waits; what runs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
