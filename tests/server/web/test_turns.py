"""Connections take turns: a few in each turn of the loop, and addresses in the fair order."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.web.turns import CONNECTIONS_A_TURN, MOST_CONNECTIONS_A_TURN, Turns


class Connection:
    """Says when it had its turn, and asks for so many more."""

    def __init__(self, name: str, turns: Turns, log: list[str], more: int = 0) -> None:
        self.name, self.turns, self.log, self.more = name, turns, log, more
        self.turn = Turn(name.partition("-")[0], 2)

    def go_on(self) -> None:
        self.log.append(self.name)
        if self.more:
            self.more -= 1
            self.turns.wait(self.turn, self)


def test_a_few_have_their_turn_at_once_and_the_others_wait() -> None:
    async def scenario() -> None:
        turns = Turns()
        assert [turns.takes_one() for _ in range(CONNECTIONS_A_TURN + 1)] == [True] * CONNECTIONS_A_TURN + [
            False
        ]
        await asyncio.sleep(0)
        assert turns.takes_one(), "the next turn of the loop has places again"

    asyncio.run(scenario())


def test_whoever_comes_waits_behind_those_who_wait() -> None:
    async def scenario() -> None:
        turns, log = Turns(), list[str]()
        waiting = Connection("a-1", turns, log)
        turns.wait(waiting.turn, waiting)
        assert not turns.takes_one()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert log == ["a-1"]

    asyncio.run(scenario())


def test_one_address_with_many_connections_does_not_keep_another_waiting() -> None:
    async def scenario() -> None:
        turns, log = Turns(), list[str]()
        for number in range(50):
            many = Connection(f"many-{number}", turns, log, more=3)
            turns.wait(many.turn, many)
        one = Connection("one", turns, log)
        turns.wait(one.turn, one)
        for _ in range(500):
            await asyncio.sleep(0)
        assert log.index("one") < CONNECTIONS_A_TURN
        assert len(log) == 50 * 4 + 1, "all had all of their turns"

    asyncio.run(scenario())


def test_turns_that_cost_little_have_place_for_more_and_dear_ones_for_fewer() -> None:
    """On a machine that others keep busy the loop has few turns, and none of them is long for its work."""
    cost, spent = 0.0, 0.0

    def processor_time() -> float:
        nonlocal spent
        spent += cost
        return spent

    async def handled_in_each_turn(turns: Turns, connections: int) -> list[int]:
        log, counts = list[str](), list[int]()
        for number in range(connections):
            one = Connection(f"many-{number}", turns, log)
            turns.wait(one.turn, one)
        while len(log) < connections:
            await asyncio.sleep(0)
            counts.append(len(log))
        return [after - before for before, after in pairwise([0, *counts]) if after > before]

    async def scenario() -> None:
        nonlocal cost
        turns = Turns(processor_time)
        cheap = await handled_in_each_turn(turns, 400)
        assert cheap[:2] == [CONNECTIONS_A_TURN, 2 * CONNECTIONS_A_TURN]
        assert max(cheap) == MOST_CONNECTIONS_A_TURN
        cost = 0.1
        dear = await handled_in_each_turn(turns, 400)
        assert dear[-2] == CONNECTIONS_A_TURN

    asyncio.run(scenario())
