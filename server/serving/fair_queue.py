"""The order in which waiting work is taken: urgent first, then callers in turn, then each caller's requests.

    queue = FairQueue[int](clock=time.monotonic)
    turn = Turn("key:team-a", priority=2)
    queue.push(turn, 7, cost=0.01)
    turn, item, cost = queue.pop()

Whoever has been given the least is next, among callers as among the requests of one caller (start-time fair
queueing, Goyal, Vin and Cheng 1996, without a bound on the number of flows). What counts is the cost of
what was taken, so that a caller of large images gets fewer of them. A caller or request that comes, or comes
back, begins where the least served of those that wait stands: time spent away gives no claim on the future.

A request that has waited for AGEING_SECONDS counts as one step more urgent, after twice as long as two: none
waits for ever behind more urgent ones.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# The wait that makes up for one step of priority.
AGEING_SECONDS = 2.0
MOST_URGENT = 1

Item = TypeVar("Item")


@dataclass(eq=False)
class Turn:
    """One request's place among all that wait; the same one for all of its items."""

    caller: str
    priority: int
    share: float = 1.0  # of the caller, relative to those of others
    since: float = math.nan  # by the queue's clock, from the first push on
    given: float = 0.0  # the cost of what was taken of it


@dataclass
class _Caller:
    given: float  # the cost of what was taken of it, over its share
    waiting: float = 0.0  # the cost of what was not
    turns: dict[Turn, None] = field(default_factory=dict)  # in the order in which they came


class FairQueue(Generic[Item]):
    """Work of many callers. It is not safe for threads: its owner has a lock or an event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._items: dict[Turn, deque[tuple[Item, float]]] = {}
        self._callers: dict[str, _Caller] = {}

    def __len__(self) -> int:
        return sum(len(items) for items in self._items.values())

    def __iter__(self) -> Iterator[Turn]:
        """Yields the requests that wait, in the order in which they came."""
        return iter(self._items)

    def push(self, turn: Turn, item: Item, cost: float) -> None:
        """Adds an item behind those of the same request. `cost` is in any unit that is the same for all."""
        if turn not in self._items:
            self._enter(turn)
        self._items[turn].append((item, cost))
        self._callers[turn.caller].waiting += cost

    def _enter(self, turn: Turn) -> None:
        caller = self._callers.get(turn.caller)
        if caller is None:
            least = min((other.given for other in self._callers.values()), default=0.0)
            caller = self._callers[turn.caller] = _Caller(least)
        turn.given = max(turn.given, min((other.given for other in caller.turns), default=0.0))
        if math.isnan(turn.since):
            turn.since = self._clock()
        caller.turns[turn] = None
        self._items[turn] = deque()

    def first(self, wanted: Callable[[Turn], bool] = lambda _: True) -> Turn | None:
        """Returns the request whose turn it is, among those wanted; None where there is none."""
        now = self._clock()
        turns = [turn for turn in self._items if wanted(turn)]
        return min(turns, key=lambda turn: self._rank(turn, now), default=None)

    def _rank(self, turn: Turn, now: float) -> tuple[float, float, float, float]:
        """Sorts requests; those that are alike in all else stay in the order in which they came."""
        return urgency(turn, now), self._callers[turn.caller].given, turn.given, turn.since

    def pop(self, wanted: Callable[[Turn], bool] = lambda _: True) -> tuple[Turn, Item, float] | None:
        """Takes the next item of the request whose turn it is, among those wanted; None without one."""
        turn = self.first(wanted)
        if turn is None:
            return None
        item, cost = self._items[turn].popleft()
        caller = self._callers[turn.caller]
        caller.given += cost / turn.share
        caller.waiting -= cost
        turn.given += cost
        if not self._items[turn]:
            self._leave(turn)
        return turn, item, cost

    def discard(self, turn: Turn) -> list[Item]:
        """Removes a request, if it waits, and returns the items that it still had."""
        if turn not in self._items:
            return []
        left = self._items[turn]
        self._callers[turn.caller].waiting -= sum(cost for _, cost in left)
        self._leave(turn)
        return [item for item, _ in left]

    def _leave(self, turn: Turn) -> None:
        del self._items[turn]
        caller = self._callers[turn.caller]
        del caller.turns[turn]
        if not caller.turns:
            del self._callers[turn.caller]

    def waiting(self) -> dict[str, float]:
        """Returns the cost of what waits, by caller."""
        return {name: caller.waiting for name, caller in self._callers.items()}


def urgency(turn: Turn, now: float) -> int:
    """Returns a request's priority after its wait, 1 for the most urgent.

    `max(1, priority - floor(waited / AGEING_SECONDS))`
    """
    return max(MOST_URGENT, turn.priority - int((now - turn.since) / AGEING_SECONDS))
