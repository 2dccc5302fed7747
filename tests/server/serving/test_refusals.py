"""Whoever is refused again and again is answered later, and nobody else is.

The numbers are spelled out, and not read from the code: 20 refusals at once and 20 a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.refusals import Refusals

FLOOD, NEIGHBOUR = Caller("address:192.0.2.1"), Caller("address:192.0.2.2")


class Bench:
    """Refusals whose time stands still but when it is moved, with the delays that there were."""

    def __init__(self) -> None:
        self.now = 0.0
        self.delays: list[float] = []
        self.refusals = Refusals(lambda: self.now, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.delays.append(seconds)

    def refuse(self, caller: Caller, times: int) -> int:
        """Refuses a caller so many times. Returns how many of the answers had to wait."""
        return self.refuse_each(caller for _ in range(times))

    def refuse_each(self, callers: Iterable[Caller]) -> int:
        """Refuses one after the other. Returns how many of the answers had to wait."""
        before = len(self.delays)

        async def all_of_them() -> None:
            for caller in callers:
                await self.refusals.slow_down(caller)

        asyncio.run(all_of_them())
        return len(self.delays) - before


def test_a_few_refusals_are_told_at_once_and_more_of_them_later() -> None:
    bench = Bench()
    assert bench.refuse(FLOOD, 20) == 0
    assert bench.refuse(FLOOD, 3) == 3
    assert all(0.5 <= delay <= 1.5 for delay in bench.delays)
    assert len(set(bench.delays)) == 3, "they do not all come back at the same moment"


def test_nobody_else_waits_for_a_flood() -> None:
    bench = Bench()
    bench.refuse(FLOOD, 100)
    assert bench.refuse(NEIGHBOUR, 20) == 0


def test_what_is_allowed_comes_back_with_time_and_never_becomes_more() -> None:
    bench = Bench()
    bench.refuse(FLOOD, 100)
    bench.now += 5 / 20
    assert bench.refuse(FLOOD, 6) == 1
    bench.now += 1000.0
    assert bench.refuse(FLOOD, 20 + 1) == 1


def test_a_bounded_number_of_callers_is_remembered() -> None:
    """The one that was refused the longest ago is forgotten first."""
    bench = Bench()
    bench.refuse(FLOOD, 100)
    others = [Caller(f"address:{number}") for number in range(10_000)]
    bench.refuse_each(others[1:])
    assert bench.refuse(FLOOD, 1) == 1, "still remembered"
    bench.refuse_each(others)
    assert bench.refuse(FLOOD, 1) == 0, "forgotten"
