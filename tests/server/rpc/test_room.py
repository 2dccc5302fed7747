"""Open calls and messages that are read, in all and of one caller."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack

import pytest

from mass_serve.server.errors import QueueFullError
from mass_serve.server.rpc.room import MOST_READ, MOST_READ_OF_ONE, MOST_STREAMS_OF_ONE, Room
from mass_serve.server.serving.caller import Caller

GREEDY, MODEST = Caller("address:1"), Caller("address:2")


def test_one_caller_has_at_most_half_of_the_calls() -> None:
    room = Room(4)
    with ExitStack() as calls:
        for _ in range(2):
            calls.enter_context(room.call(GREEDY))
        with pytest.raises(QueueFullError, match="Too many calls"):
            calls.enter_context(room.call(GREEDY))
        for _ in range(2):
            calls.enter_context(room.call(MODEST))
        with pytest.raises(QueueFullError, match="Too many calls"):
            calls.enter_context(room.call(Caller("address:3")))
        assert room.open == 4
    assert room.open == 0
    with room.call(GREEDY):
        assert room.open == 1


def test_streams_that_were_ended_take_no_place_of_others_and_are_bounded() -> None:
    room = Room(1000)
    with ExitStack() as places:
        for _ in range(MOST_STREAMS_OF_ONE):
            places.enter_context(room.ended_stream(GREEDY))
        for _ in range(MOST_STREAMS_OF_ONE):
            places.enter_context(room.stream(GREEDY))
        with pytest.raises(QueueFullError, match="not taken up"):
            places.enter_context(room.ended_stream(GREEDY))
        places.enter_context(room.ended_stream(MODEST))


async def _read_until(end: asyncio.Event, room: Room, caller: Caller, reading: list[Caller]) -> None:
    async with room.reading(caller):
        reading.append(caller)
        await end.wait()


def test_whoever_reads_slowly_takes_no_place_of_others() -> None:
    async def run() -> list[Caller]:
        room, end, reading = Room(1000), asyncio.Event(), list[Caller]()
        async with AsyncExitStack() as stack:
            for caller in (GREEDY, MODEST):
                stack.enter_context(room.call(caller))
            callers = [GREEDY] * (MOST_READ + 1) + [MODEST]
            tasks = [asyncio.create_task(_read_until(end, room, caller, reading)) for caller in callers]
            await asyncio.sleep(0.05)
            first = list(reading)
            end.set()
            await asyncio.gather(*tasks)
        assert len(reading) == len(callers), "all had their turn"
        return first

    first = asyncio.run(run())
    assert (first.count(GREEDY), first.count(MODEST)) == (MOST_READ_OF_ONE, 1)


def test_whoever_leaves_the_line_gives_its_place_back() -> None:
    async def run() -> None:
        room, end, reading = Room(1000), asyncio.Event(), list[Caller]()
        with room.call(GREEDY):
            tasks = [
                asyncio.create_task(_read_until(end, room, GREEDY, reading)) for _ in range(MOST_READ_OF_ONE)
            ]
            await asyncio.sleep(0.05)
            leaving = asyncio.create_task(_read_until(end, room, GREEDY, reading))
            await asyncio.sleep(0.05)
            for task in (leaving, *tasks):
                task.cancel()
            await asyncio.gather(leaving, *tasks, return_exceptions=True)
            end.set()
            await asyncio.wait_for(_read_until(end, room, GREEDY, reading), 5)

    asyncio.run(run())
