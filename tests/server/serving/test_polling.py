"""Waiting for threads without a thread."""

from __future__ import annotations

import asyncio
import threading
import time

from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.polling import becomes_true
from mass_serve.server.serving.threads import Threads


def test_it_ends_with_what_it_waits_for() -> None:
    begun = time.monotonic()
    assert asyncio.run(becomes_true(lambda: time.monotonic() > begun + 0.05, 20))
    assert time.monotonic() - begun < 10


def test_it_waits_no_longer_than_it_may() -> None:
    assert not asyncio.run(becomes_true(lambda: False, 0.05))
    assert asyncio.run(becomes_true(lambda: True, 0))


def test_threads_tell_the_age_of_what_waits_and_runs() -> None:
    gate = threading.Event()
    threads = Threads(1, "test")

    async def ages() -> tuple[float, float, float]:
        before = threads.oldest_seconds
        working = asyncio.gather(*(threads.run(Turn("somebody", 2), 1.0, gate.wait, 20) for _ in range(3)))
        await asyncio.sleep(0.1)
        meanwhile = threads.oldest_seconds
        gate.set()
        await working
        return before, meanwhile, threads.oldest_seconds

    before, meanwhile, afterwards = asyncio.run(ages())
    assert before == afterwards == 0
    assert 0.05 < meanwhile < 20
    threads.close()
