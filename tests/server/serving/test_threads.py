"""Who waits for a thread: in the order of what was given, until they leave or the end comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.threads import Threads

PATIENCE = 20.0


class Bench:
    """One thread that is at work until `gate` opens."""

    def __init__(self) -> None:
        self.threads = Threads(1, "test")
        self.gate = threading.Event()
        self.done: list[str] = []

    def ask(self, caller: str, cost: float = 1.0) -> asyncio.Future[None]:
        work = self.threads.run(Turn(caller, 2), cost, self.done.append, caller)
        return asyncio.ensure_future(work)

    def test(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            holding = asyncio.ensure_future(
                self.threads.run(Turn("holder", 2), 1.0, self.gate.wait, PATIENCE)
            )
            while not self.threads.busy:
                await asyncio.sleep(0.001)
            await asyncio.wait_for(scenario(), PATIENCE)
            self.gate.set()
            await holding

        asyncio.run(run())


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.gate.set()
    made.threads.close()


def test_who_asks_for_dear_work_has_its_turn_less_often(bench: Bench) -> None:
    async def scenario() -> None:
        dear = [bench.ask("dear", 30.0) for _ in range(3)]
        cheap = [bench.ask("cheap", 10.0) for _ in range(6)]
        await asyncio.sleep(0)
        bench.gate.set()
        await asyncio.gather(*dear, *cheap)

    bench.test(scenario)
    first = bench.done[:8]
    assert (first.count("dear"), first.count("cheap")) == (2, 6)


def test_who_leaves_holds_no_place(bench: Bench) -> None:
    async def scenario() -> None:
        leaving = [bench.ask("leaver") for _ in range(1000)]
        staying = bench.ask("stayer")
        await asyncio.sleep(0)
        for one in leaving:
            one.cancel()
        await asyncio.wait(leaving)
        assert len(bench.threads._waiting) == 1
        bench.gate.set()
        await staying

    bench.test(scenario)
    assert bench.done == ["stayer"]


def test_who_leaves_as_the_thread_comes_hands_it_on(bench: Bench) -> None:
    async def scenario() -> None:
        first, second = bench.ask("first"), bench.ask("second")
        await asyncio.sleep(0)
        bench.threads._give_back()
        first.cancel()
        bench.gate.set()
        await second
        assert first.cancelled()

    bench.test(scenario)
    assert bench.done == ["second"]


def test_the_end_waits_for_nobody_and_lets_nobody_wait(bench: Bench) -> None:
    async def scenario() -> None:
        waiting = [bench.ask("waiter") for _ in range(3)]
        await asyncio.sleep(0)
        bench.threads.close()
        await asyncio.wait(waiting)
        assert all(one.cancelled() for one in waiting)

    bench.test(scenario)
    assert bench.done == []
