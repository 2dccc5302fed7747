"""The order in which waiting work is taken: urgent first, then callers in turn, then each caller's requests.

    queue = FairQueue[int](clock=time.monotonic)
    turn = Turn("key:team-a", priority=2)
    queue.push(turn, 7, cost=0.01)
    turn, item = queue.pop()

Whoever has been given the least is next, among callers as among the requests of one caller (start-time fair
queueing, Goyal, Vin and Cheng 1996, without a bound on the number of flows). What counts is the cost of
what was taken, so that a caller of large images gets fewer of them. A caller or request that comes, or comes
back, begins where the least served of those that wait stands: time spent away gives no claim on the future.
But it begins no earlier than where it left: who sends one large item after the other pays for each of them.

A priority counts as one step more urgent when the oldest request of it has waited for AGEING_SECONDS, after
twice as long as two: none waits for ever behind more urgent ones. The priority ages and not the request, or
the old requests of a caller that sends too many would go before the new ones of all others. And none ages
past one that is more urgent: at most they count alike, and callers take turns.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

# The wait that makes up for one step of priority.
AGEING_SECONDS = 2.0
MOST_URGENT = 1
# Requests that say nothing of their priority stand in the middle.
ORDINARY_PRIORITY = 2

Item = TypeVar("Item")


@dataclass(eq=False)
class Turn:
    """One request's place among all that wait; the same one for all of its items, in every queue."""

    caller: str
    priority: int
    share: float = 1.0  # of the caller, relative to those of others
    since: float = math.nan  # by the queue's clock, from the first push on


@dataclass(eq=False)
class _Request(Generic[Item]):
    """Holds what one queue knows of a request."""

    turn: Turn
    number: int  # in the order in which they came
    given: float  # the cost of what was taken of it
    items: deque[tuple[Item, float]] = field(default_factory=deque)


@dataclass(eq=False)
class _Caller(Generic[Item]):
    given: float  # the cost of what was taken of it, over its share
    requests: dict[Turn, _Request[Item]] = field(default_factory=dict)  # in the order in which they came


class FairQueue(Generic[Item]):
    """Work of many callers. It is not safe for threads: its owner has a lock or an event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._requests: dict[Turn, _Request[Item]] = {}
        self._callers: dict[str, _Caller[Item]] = {}
        # Where those stood that have left: callers ahead of those that wait, and requests that live.
        self._left: dict[str, float] = {}
        self._left_requests: WeakKeyDictionary[Turn, float] = WeakKeyDictionary()
        self._items = 0
        self._came = 0

    def __len__(self) -> int:
        return self._items

    def push(self, turn: Turn, item: Item, cost: float) -> None:
        """Adds an item behind those of the same request. `cost` is in any unit that is the same for all."""
        request = self._requests.get(turn) or self._enter(turn)
        request.items.append((item, cost))
        self._items += 1

    def _enter(self, turn: Turn) -> _Request[Item]:
        caller = self._callers.get(turn.caller) or self._enter_caller(turn.caller)
        if math.isnan(turn.since):
            turn.since = self._clock()
        least = min((other.given for other in caller.requests.values()), default=0.0)
        given = max(least, self._left_requests.pop(turn, 0.0))
        request = _Request[Item](turn, self._came, given)
        self._came += 1
        caller.requests[turn] = self._requests[turn] = request
        return request

    def _enter_caller(self, name: str) -> _Caller[Item]:
        least = min((other.given for other in self._callers.values()), default=0.0)
        self._left = {other: given for other, given in self._left.items() if given > least}
        caller = self._callers[name] = _Caller[Item](max(least, self._left.pop(name, 0.0)))
        return caller

    def first(self) -> Turn | None:
        """Returns the request whose turn it is; None where there is none."""
        if not self._items:
            return None
        # Quicker than the heaps of `_Order`, which are worth it for many items.
        levels = self._levels()
        best: tuple[tuple[int, float, float, float, int], Turn] | None = None
        for caller in self._callers.values():
            for turn, request in caller.requests.items():
                rank = levels[turn.priority], caller.given, request.given, turn.since, request.number
                if best is None or rank < best[0]:
                    best = rank, turn
        return None if best is None else best[1]

    def pop(self) -> tuple[Turn, Item] | None:
        """Takes the next item of the request whose turn it is; None without one."""
        turn = self.first()
        if turn is None:
            return None
        return turn, self._take_from(self._callers[turn.caller], self._requests[turn])

    def take(
        self,
        most: int,
        wanted: Callable[[Turn], bool] = lambda _: True,
        size: Callable[[Item], int] = lambda _: 1,
    ) -> list[tuple[Turn, Item]]:
        """Takes items of the requests that are wanted, each of the request whose turn it is.

        Their sizes add up to at most `most`, but for a larger item, which is taken alone. One that does not
        fit beside those before it ends the taking: it is not passed over for smaller ones.
        """
        order = _Order(self._callers.values(), self._levels(), wanted)
        taken: list[tuple[Turn, Item]] = []
        while most > 0 and (following := order.following()):
            caller, request = following
            most -= size(request.items[0][0])
            if most < 0 and taken:
                break
            taken.append((request.turn, self._take_from(caller, request)))
            order.served()
        return taken

    def _take_from(self, caller: _Caller[Item], request: _Request[Item]) -> Item:
        item, cost = request.items.popleft()
        caller.given += cost / request.turn.share
        request.given += cost
        self._items -= 1
        if not request.items:
            self._leave(request.turn)
        return item

    def discard(self, turn: Turn) -> list[Item]:
        """Removes a request, if it waits, and returns the items that it still had."""
        request = self._requests.get(turn)
        if request is None:
            return []
        self._items -= len(request.items)
        self._leave(turn)
        return [item for item, _ in request.items]

    def remove(self, turn: Turn, item: Item) -> bool:
        """Removes one item of a request, if it waits."""
        request = self._requests.get(turn)
        place = None if request is None else _place(request.items, item)
        if request is None or place is None:
            return False
        del request.items[place]
        self._items -= 1
        if not request.items:
            self._leave(turn)
        return True

    def _leave(self, turn: Turn) -> None:
        self._left_requests[turn] = self._requests.pop(turn).given
        caller = self._callers[turn.caller]
        del caller.requests[turn]
        if not caller.requests:
            del self._callers[turn.caller]
            self._left[turn.caller] = caller.given
        if not self._callers:
            self._left.clear()  # nobody waited for what they were given

    def _levels(self) -> dict[int, int]:
        oldest: dict[int, float] = {}
        for turn in self._requests:
            oldest[turn.priority] = min(turn.since, oldest.get(turn.priority, math.inf))
        now = self._clock()
        return aged_levels({priority: now - since for priority, since in oldest.items()})


def _place(items: Iterable[tuple[Item, float]], wanted: Item) -> int | None:
    return next((place for place, (item, _) in enumerate(items) if item == wanted), None)


def aged_levels(longest_waits: Mapping[int, float]) -> dict[int, int]:
    """Returns what each priority counts as, 1 for the most urgent, by how long its oldest request has waited.

    `level(p) = min over q >= p of max(1, q - floor(longest_waits[q] / AGEING_SECONDS))`
    """
    levels: dict[int, int] = {}
    level = max(longest_waits, default=MOST_URGENT)
    for priority in sorted(longest_waits, reverse=True):
        aged = max(MOST_URGENT, priority - int(longest_waits[priority] / AGEING_SECONDS))
        levels[priority] = level = min(level, aged)
    return levels


# Sorts the requests of one caller; those that are alike in all else stay in the order in which they came.
_Rank = tuple[int, float, float, int]


class _Order(Generic[Item]):
    """Whose turn it is, for as long as nothing is pushed: a heap of callers, each with a heap of requests."""

    def __init__(
        self, callers: Iterable[_Caller[Item]], levels: Mapping[int, int], wanted: Callable[[Turn], bool]
    ) -> None:
        self._levels = levels
        self._callers: list[tuple[int, float, _Rank, _Caller[Item]]] = []
        self._requests: dict[_Caller[Item], list[tuple[_Rank, _Request[Item]]]] = {}
        for caller in callers:
            requests = [(self._rank(one), one) for one in caller.requests.values() if wanted(one.turn)]
            heapq.heapify(requests)
            self._requests[caller] = requests
            self._line_up(caller)

    def following(self) -> tuple[_Caller[Item], _Request[Item]] | None:
        """Returns the request whose turn it is, and its caller."""
        if not self._callers:
            return None
        caller = self._callers[0][-1]
        return caller, self._requests[caller][0][1]

    def served(self) -> None:
        """Sorts that request, and its caller, behind those that have been given less by now."""
        caller = heapq.heappop(self._callers)[-1]
        _, request = heapq.heappop(self._requests[caller])
        if request.items:
            heapq.heappush(self._requests[caller], (self._rank(request), request))
        self._line_up(caller)

    def _rank(self, request: _Request[Item]) -> _Rank:
        turn = request.turn
        return self._levels[turn.priority], request.given, turn.since, request.number

    def _line_up(self, caller: _Caller[Item]) -> None:
        requests = self._requests[caller]
        if requests:
            rank = requests[0][0]
            heapq.heappush(self._callers, (rank[0], caller.given, rank, caller))
