"""The order of waiting work: urgent first, then callers by what they cost, then each caller's requests."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from mass_serve.server.serving.fair_queue import (
    AGEING_SECONDS,
    ORDINARY_PRIORITY,
    FairQueue,
    Turn,
    aged_levels,
)

ORDINARY = ORDINARY_PRIORITY


@dataclass
class Line:
    """A queue and a clock that stands still until a test moves it; each item is its request's name."""

    now: float = 100.0
    queue: FairQueue[str] = field(init=False)
    names: dict[Turn, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = FairQueue(lambda: self.now)

    def ask(
        self,
        caller: str,
        name: str = "",
        *,
        costs: tuple[float, ...] = (1.0,),
        priority: int = ORDINARY,
        share: float = 1.0,
    ) -> Turn:
        """A new request with an item of each cost."""
        turn = Turn(caller, priority, share)
        self.names[turn] = name or caller
        self.more(turn, *costs)
        return turn

    def more(self, turn: Turn, *costs: float) -> None:
        for cost in costs:
            self.queue.push(turn, self.names[turn], cost)

    def take(self, times: int = 1000) -> str:
        """The names of the next requests, as they are taken."""
        taken = (self.queue.pop() for _ in range(min(times, len(self.queue))))
        return "".join(item for _, item in filter(None, taken))


@pytest.fixture
def line() -> Line:
    return Line()


def test_requests_alike_are_taken_in_the_order_in_which_they_came(line: Line) -> None:
    for name in "cab":
        line.ask("me", name)
    assert line.take() == "cab"


def test_what_is_taken_comes_with_its_request(line: Line) -> None:
    turn = line.ask("a", costs=(1.5, 2.5))
    assert line.queue.pop() == (turn, "a")
    assert line.queue.pop() == (turn, "a")
    assert line.queue.pop() is None


def test_the_items_of_a_request_keep_their_order() -> None:
    queue = FairQueue[int](clock=lambda: 0.0)
    turn = Turn("a", ORDINARY)
    for item in (3, 1, 2):
        queue.push(turn, item, cost=1.0)
    assert [queue.pop() for _ in range(3)] == [(turn, item) for item in (3, 1, 2)]


def test_callers_take_turns_however_much_one_of_them_asks(line: Line) -> None:
    line.ask("a", costs=(1.0,) * 6)
    line.ask("b", costs=(1.0,) * 2)
    assert line.take() == "ababaaaa"


def test_many_requests_give_a_caller_no_more_than_one(line: Line) -> None:
    for _ in range(5):
        line.ask("a")
    line.ask("b", costs=(1.0,) * 3)
    assert line.take() == "abababaa"


def test_a_caller_of_costly_work_gets_fewer_items(line: Line) -> None:
    line.ask("a", costs=(3.0,) * 3)
    line.ask("b", costs=(1.0,) * 9)
    taken = line.take(8)
    assert taken == "abbbabbb", "as much cost for each"


def test_a_share_of_two_gives_twice_as_much(line: Line) -> None:
    line.ask("a", costs=(1.0,) * 10, share=2.0)
    line.ask("b", costs=(1.0,) * 10)
    assert line.take(6).count("a") == 4
    assert line.take(6).count("a") == 4


def test_a_share_that_is_not_said_is_one(line: Line) -> None:
    said, unsaid = Turn("a", ORDINARY, share=1.0), Turn("b", ORDINARY)
    line.names |= {said: "a", unsaid: "b"}
    line.more(said, *(1.0,) * 4)
    line.more(unsaid, *(1.0,) * 4)
    assert line.take() == "abababab"


def test_the_requests_of_one_caller_take_turns_by_their_cost(line: Line) -> None:
    line.ask("me", "a", costs=(2.0,) * 3)
    line.ask("me", "b", costs=(1.0,) * 4)
    assert line.take() == "abbabba"


def test_a_new_caller_waits_for_no_one_and_makes_no_one_wait_for_what_was_given_before(line: Line) -> None:
    line.ask("a", costs=(1.0,) * 20)
    assert line.take(10) == "a" * 10
    line.ask("b", costs=(1.0,) * 10)
    assert line.take(6) in {"ababab", "bababa"}, "b has no claim for the ten that a was given"


def test_a_new_caller_begins_where_the_least_served_stands(line: Line) -> None:
    line.ask("a", costs=(4.0,) * 3)
    line.ask("b", costs=(1.0,) * 6)
    assert line.take(3) == "abb", "a was given 4, and b 2"
    line.ask("c", costs=(1.0,) * 6)
    assert line.take(4) in {"bcbc", "cbcb"}, "c begins beside b"


def test_time_away_gives_no_claim(line: Line) -> None:
    line.ask("a", costs=(1.0,) * 20)
    line.ask("b")
    assert line.take(2) == "ab"
    assert line.take(6) == "a" * 6
    line.ask("b", costs=(1.0,) * 6)
    assert line.take(6) in {"ababab", "bababa"}


def test_who_sends_one_large_item_after_the_other_pays_for_each(line: Line) -> None:
    line.ask("a", costs=(4.0,))
    line.ask("b", costs=(1.0,) * 20)
    taken = line.take(1)
    for _ in range(3):
        line.ask("a", costs=(4.0,))
        taken += line.take(5)
    assert taken == "abbbbabbbbabbbba", "as much cost for each, though a was away whenever it was served"


def test_what_a_caller_was_given_is_forgotten_when_the_others_have_caught_up(line: Line) -> None:
    line.ask("a", costs=(3.0,))
    line.ask("b", costs=(1.0,) * 20)
    assert line.take(6) == "abbbbb", "b was given 5"
    line.ask("a", costs=(1.0,) * 2)
    assert line.take(4) in {"abab", "baba"}, "a begins at 5 and not at 3"


def test_what_a_caller_was_given_is_forgotten_when_nobody_waits(line: Line) -> None:
    line.ask("a", costs=(50.0,))
    assert line.take() == "a"
    line.ask("b", costs=(1.0,) * 3)
    line.ask("a", costs=(1.0,) * 3)
    assert line.take() == "bababa"


def test_what_those_that_are_away_were_given_is_not_kept_for_ever(line: Line) -> None:
    line.ask("b", costs=(1.0,) * 2000)
    for n in range(100):
        line.ask(f"caller-{n}", "c")
        line.take(2)
    assert len(line.queue._left) <= 1


def test_those_that_others_have_overtaken_are_not_kept(line: Line) -> None:
    line.ask("b", costs=(1.0,) * 2000)
    for n in range(100):
        line.ask(f"caller-{n}", "c")
        line.take(5)
    assert len(line.queue._left) <= 1


def test_a_new_request_of_a_caller_begins_where_the_least_served_one_stands(line: Line) -> None:
    line.ask("me", "a", costs=(1.0,) * 20)
    assert line.take(10) == "a" * 10
    line.ask("me", "b", costs=(1.0,) * 10)
    assert line.take(6) in {"ababab", "bababa"}


def test_a_request_that_comes_back_keeps_what_it_was_given(line: Line) -> None:
    """Its next batch does not go before those of a request that was given less."""
    first = line.ask("me", "a", costs=(5.0,))
    line.now += 0.1
    line.ask("me", "b", costs=(1.0,) * 9)
    assert line.take(2) == "ab"
    line.more(first, 1.0, 1.0)
    assert line.take(6) == "bbbbab", "b was given 5 then, and a came first"


def test_urgent_requests_go_first_whoever_asks(line: Line) -> None:
    line.ask("a", "o")
    line.ask("b", "l", priority=ORDINARY + 1)
    line.ask("a", "u", priority=ORDINARY - 1, costs=(1.0,) * 3)
    assert line.take() == "uuuol"


@pytest.mark.parametrize(
    ("waited", "now_at"), [(0.0, 3), (0.999, 3), (1.0, 2), (1.999, 2), (2.0, 1), (50.0, 1)]
)
def test_a_wait_makes_more_urgent(waited: float, now_at: int) -> None:
    assert aged_levels({3: waited * AGEING_SECONDS}) == {3: now_at}


@pytest.mark.parametrize(
    ("waits", "levels"),
    [
        ({}, {}),
        ({1: 0.0, 2: 0.0, 3: 0.0}, {1: 1, 2: 2, 3: 3}),
        ({2: 0.0, 3: 1.0}, {2: 2, 3: 2}),
        ({2: 0.0, 3: 2.0}, {2: 1, 3: 1}),
        ({2: 1.0, 3: 0.0}, {2: 1, 3: 3}),
        ({1: 9.0, 2: 0.0}, {1: 1, 2: 2}),
    ],
)
def test_no_priority_ages_past_a_more_urgent_one(waits: dict[int, float], levels: dict[int, int]) -> None:
    assert aged_levels({priority: wait * AGEING_SECONDS for priority, wait in waits.items()}) == levels


def test_a_wait_makes_up_for_one_step_in_seconds_that_people_can_bear() -> None:
    assert AGEING_SECONDS == 2.0


def test_nobody_is_more_urgent_than_the_most_urgent(line: Line) -> None:
    """Else a long queue of urgent requests would put callers' turns out of force."""
    line.ask("a", costs=(1.0,) * 4, priority=1)
    line.now += 10 * AGEING_SECONDS
    line.ask("b", costs=(1.0,) * 4, priority=1)
    assert line.take(4) in {"abab", "baba"}


def test_old_requests_of_one_caller_do_not_go_before_the_new_ones_of_another(line: Line) -> None:
    """A caller that sends too many has old ones always."""
    line.ask("flood", "f", costs=(1.0,) * 64)
    line.take(10)
    line.now += 5 * AGEING_SECONDS
    line.ask("neighbour", "n", costs=(1.0,) * 3)
    assert line.take(6) in {"nfnfnf", "fnfnfn"}


def test_nobody_ages_past_the_ordinary_by_asking_for_less(line: Line) -> None:
    line.ask("flood", "f", priority=4, costs=(1.0,) * 64)
    line.now += 5 * AGEING_SECONDS
    line.ask("neighbour", "n", costs=(1.0,) * 3)
    assert line.take(6) in {"nfnfnf", "fnfnfn"}


def test_no_request_waits_for_ever_behind_more_urgent_ones(line: Line) -> None:
    line.ask("patient", "p", priority=3)
    taken = ""
    for _ in range(30):
        line.ask("hasty", "h", priority=1)
        taken += line.take(1)
        line.now += 0.5
    assert taken.index("p") == 2 * AGEING_SECONDS / 0.5, "when two steps have been waited for"


def test_the_wait_counts_from_the_first_item_on(line: Line) -> None:
    turn = line.ask("a", priority=2, costs=(1.0,))
    line.now += AGEING_SECONDS / 2
    assert line.take(1) == "a"
    line.more(turn, 1.0)
    line.now += AGEING_SECONDS / 2
    line.ask("b", priority=1)
    assert turn.since == 100.0
    assert line.take(1) == "b", "both count as urgent by now, and a was given something already"
    line.ask("b", priority=1)
    assert line.take(1) == "a"


def test_of_equals_the_one_that_has_waited_longest_is_first(line: Line) -> None:
    """Also where it had been taken out in between, and stands behind in the queue."""
    old = line.ask("a")
    line.now += 0.1
    line.ask("b", costs=(1.0, 1.0))
    assert line.take(2) == "ab"
    line.more(old, 1.0)
    assert line.take() == "ab"


def wants(*callers: str) -> Callable[[Turn], bool]:
    return lambda turn: turn.caller in callers


def test_only_what_is_wanted_is_taken(line: Line) -> None:
    first, second = line.ask("a"), line.ask("b")
    assert line.queue.first() is first
    assert line.queue.take(9, wants("c")) == []
    assert line.queue.take(9, wants("b")) == [(second, "b")]
    assert line.take() == "a"


def test_many_are_taken_at_once_in_the_same_order(line: Line) -> None:
    a = line.ask("a", costs=(1.0,) * 3)
    b = line.ask("b", costs=(2.0,) * 2)
    line.ask("c", costs=(1.0,) * 2)
    taken = line.queue.take(4, wants("a", "b"))
    assert taken == [(a, "a"), (b, "b"), (a, "a"), (a, "a")]
    assert line.queue.take(0) == []
    assert [item for _, item in line.queue.take(9)] == ["c", "c", "b"]
    assert line.queue.take(1) == []
    assert len(line.queue) == 0


def test_sizes_add_up_to_what_is_asked_for_at_most() -> None:
    queue = FairQueue[int](clock=lambda: 0.0)

    def taken(most: int) -> list[int]:
        return [item for _, item in queue.take(most, size=lambda item: item)]

    for size in (2, 3, 1, 7, 1):
        queue.push(Turn(f"caller {size}", ORDINARY), size, cost=float(size))
    assert taken(0) == []
    assert taken(4) == [2], "3 does not fit beside it, and 1 does not pass it"
    assert taken(4) == [3, 1]
    assert taken(4) == [7], "what is larger than all is taken alone"
    assert taken(4) == [1]
    assert taken(4) == []


def test_one_by_one_and_many_at_once_are_the_same_order() -> None:
    chosen = random.Random(5)
    lines = Line(), Line()
    for number in range(60):
        caller, priority = chosen.choice("abcde"), chosen.choice((1, 2, 2, 3))
        costs = tuple(chosen.choice((1.0, 2.5, 7.0)) for _ in range(chosen.randint(1, 5)))
        wait, share = chosen.random(), {"a": 3.0}.get(caller, 1.0)
        for line in lines:
            line.now += wait
            line.ask(caller, f"{caller}{number} ", costs=costs, priority=priority, share=share)
    for _ in range(5):
        taken = [item for _, item in lines[1].queue.take(20)]
        assert lines[0].take(20) == "".join(taken)


def test_a_caller_stands_where_its_most_urgent_request_does(line: Line) -> None:
    line.ask("me", "l", priority=3)
    line.ask("me", "o")
    line.ask("you", "y", priority=3)
    assert line.take() == "oyl"


def test_a_request_has_one_turn_in_two_queues(line: Line) -> None:
    """What it was given in one, by pixels, is nothing in another, by images; its wait counts on."""
    turn = line.ask("a", costs=(1e9,))
    line.take()
    line.now += AGEING_SECONDS
    other = Line(now=line.now)
    other.names[turn] = "a"
    other.more(turn, *(1.0,) * 2)
    other.ask("b", costs=(1.0,) * 2)
    assert turn.since == line.now - AGEING_SECONDS
    assert other.take() == "abab"


def test_looking_takes_nothing(line: Line) -> None:
    turn = line.ask("a")
    assert (line.queue.first(), line.queue.first()) == (turn, turn)
    assert len(line.queue) == 1


def test_a_discarded_request_gives_back_what_it_had_left(line: Line) -> None:
    gone = line.ask("a", "x", costs=(1.0, 2.0, 4.0))
    line.ask("a", "y")
    assert line.take(1) == "x"
    assert line.queue.discard(gone) == ["x", "x"]
    assert line.queue.discard(gone) == []
    assert len(line.queue) == 1
    assert line.take() == "y"


def test_what_never_waited_is_discarded_as_nothing(line: Line) -> None:
    line.ask("a")
    assert line.queue.discard(Turn("a", ORDINARY)) == []
    assert len(line.queue) == 1


def test_what_was_discarded_was_not_given(line: Line) -> None:
    gone = line.ask("a", "x", costs=(100.0,))
    line.ask("a", "a", costs=(1.0,) * 3)
    line.ask("b", "b", costs=(1.0,) * 3)
    line.queue.discard(gone)
    assert line.take() == "ababab"


def test_one_item_is_removed_and_the_others_keep_their_place() -> None:
    queue = FairQueue[str](clock=lambda: 0.0)
    mine, theirs = Turn("me", ORDINARY), Turn("they", ORDINARY)
    for turn, items in ((mine, "abc"), (theirs, "xyz")):
        for item in items:
            queue.push(turn, item, cost=1.0)
    assert queue.remove(mine, "b")
    assert not queue.remove(mine, "b"), "it waits no more"
    assert not queue.remove(theirs, "a"), "it is of another request"
    assert len(queue) == 5
    assert [item for _, item in queue.take(9)] == ["a", "x", "c", "y", "z"]


def test_who_has_nothing_left_after_a_removal_waits_no_more() -> None:
    queue = FairQueue[str](clock=lambda: 0.0)
    gone, kept = Turn("me", ORDINARY), Turn("me", ORDINARY)
    queue.push(gone, "a", cost=1.0)
    queue.push(kept, "b", cost=1.0)
    assert queue.remove(gone, "a")
    assert not queue.remove(gone, "a")
    assert queue.first() is kept
    assert queue.pop() == (kept, "b")
    assert queue.pop() is None


def test_the_length_counts_items(line: Line) -> None:
    assert len(line.queue) == 0
    line.ask("b", costs=(1.0,) * 3)
    line.ask("a")
    assert len(line.queue) == 4
    assert line.take(1) == "b"
    assert len(line.queue) == 3


def test_requests_that_look_alike_are_not_the_same(line: Line) -> None:
    first, second = line.ask("a", "x"), line.ask("a", "y")
    assert line.queue.discard(first) == ["x"]
    assert line.queue.first() is second
