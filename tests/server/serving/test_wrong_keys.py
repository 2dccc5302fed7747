"""Guessing keys takes ever longer, for whoever guesses and for nobody else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from mass_serve.server.errors import WrongKeysError
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving import wrong_keys
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.wrong_keys import FORGOTTEN_AFTER, MOST_OPEN, WrongKeys

GUESSER, OTHER = Caller("address:192.0.2.1"), Caller("address:192.0.2.2")


@dataclass
class Door:
    """Wrong keys with a clock that stands still, whose sleeps are written down."""

    now: float = 50.0
    slept: list[float] = field(default_factory=list)
    metrics: Metrics = field(default_factory=lambda: Metrics({}))
    wrong: WrongKeys = field(init=False)

    def __post_init__(self) -> None:
        self.wrong = WrongKeys(self.metrics, lambda: self.now, self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def guess(self, caller: Caller = GUESSER, times: int = 1) -> list[float]:
        """How long each of so many guesses, one after the other, waits."""
        self.slept.clear()
        for _ in range(times):
            asyncio.run(self.wrong.slow_down(caller))
        return list(self.slept)


@pytest.fixture
def door() -> Door:
    return Door()


def test_each_wrong_key_takes_twice_as_long_up_to_five_seconds(door: Door) -> None:
    assert door.guess(times=8) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert door.guess(times=2000)[-1] == 5.0


def test_nobody_waits_for_the_wrong_keys_of_others(door: Door) -> None:
    door.guess(times=5)
    assert door.guess(OTHER) == [0.1]


def test_wrong_keys_are_forgotten_after_a_minute(door: Door) -> None:
    assert FORGOTTEN_AFTER == 60.0
    door.guess(times=3)
    door.now += FORGOTTEN_AFTER
    assert door.guess() == [0.8], "a minute counts from the last one"
    door.now += FORGOTTEN_AFTER + 0.001
    assert door.guess(times=2) == [0.1, 0.2]


def test_only_a_handful_of_answers_wait_at_once() -> None:
    door = Door()
    gate = asyncio.Event()

    async def wait(_: float) -> None:
        await gate.wait()

    async def flood() -> list[Any]:
        door.wrong = WrongKeys(door.metrics, lambda: door.now, wait)
        guesses = [asyncio.ensure_future(door.wrong.slow_down(GUESSER)) for _ in range(MOST_OPEN + 2)]
        await asyncio.sleep(0)
        neighbour = asyncio.ensure_future(door.wrong.slow_down(OTHER))
        await asyncio.sleep(0)
        assert not neighbour.done()
        gate.set()
        results = await asyncio.gather(*guesses, neighbour, return_exceptions=True)
        await door.wrong.slow_down(GUESSER)
        return results

    results = asyncio.run(flood())
    assert [type(result) for result in results].count(WrongKeysError) == 2
    assert results[-1] is None
    assert MOST_OPEN == 4
    refused = next(result for result in results if isinstance(result, WrongKeysError))
    assert (refused.status, refused.headers()) == (429, {"Retry-After": "1"})


def test_a_caller_who_leaves_while_it_waits_leaves_its_place_too(door: Door) -> None:
    async def forever(_: float) -> None:
        await asyncio.Event().wait()

    async def leave() -> None:
        door.wrong = WrongKeys(door.metrics, lambda: door.now, forever)
        for _ in range(3 * MOST_OPEN):
            guess = asyncio.ensure_future(door.wrong.slow_down(GUESSER))
            await asyncio.sleep(0)
            guess.cancel()
            with pytest.raises(asyncio.CancelledError):
                await guess

    asyncio.run(leave())


def test_every_wrong_key_is_counted(door: Door) -> None:
    door.guess(times=3)
    assert b"mass_wrong_keys_total 3.0" in door.metrics.render()


def test_the_table_is_bounded_and_forgets_the_oldest(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_keys, "MOST_CALLERS", 3)
    callers = [Caller(f"address:{n}") for n in range(4)]
    for caller in callers[:3]:
        door.guess(caller)
    assert door.guess(callers[0]) == [0.2]
    door.guess(callers[3])
    assert len(door.wrong._records) == 3
    assert door.guess(callers[0]) == [0.4]
    assert door.guess(callers[1]) == [0.1], "its last wrong key was the oldest"
