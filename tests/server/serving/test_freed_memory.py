"""Memory that bodies left behind goes back to the system, once it is worth it."""

from __future__ import annotations

from itertools import count

import psutil

from mass_serve.server.serving.freed_memory import SETTLING_SECONDS, WORTH_GIVING_BACK, FreedMemory

BODY = 1 << 20


class Held:
    """Bytes that are held, a clock, and how often freed ones were given back."""

    def __init__(self) -> None:
        self.bytes = 0
        self.seconds = 0.0
        self.times = 0
        self.freed = FreedMemory(lambda: self.bytes, self._give_back, lambda: self.seconds)

    def _give_back(self) -> None:
        self.times += 1

    def becomes(self, nbytes: int, *, for_seconds: float = 2 * SETTLING_SECONDS) -> None:
        self.bytes = nbytes
        self.freed.check()
        self.seconds += for_seconds
        self.freed.check()

    def given_back(self) -> int:
        self.freed._thread.shutdown(wait=True)
        return self.times


def test_what_was_freed_is_given_back_once_it_is_worth_it() -> None:
    held = Held()
    held.becomes(3 * WORTH_GIVING_BACK)
    held.becomes(WORTH_GIVING_BACK)
    held.becomes(1)  # a byte less than what is worth it, since
    assert held.given_back() == 1


def test_memory_that_is_taken_is_none_to_give_back() -> None:
    held = Held()
    for nbytes in range(0, 4 * WORTH_GIVING_BACK, WORTH_GIVING_BACK):
        held.becomes(nbytes)
    assert held.given_back() == 0


def test_what_is_freed_for_a_moment_is_left_to_those_who_take_it_next() -> None:
    held = Held()
    for _ in range(8):
        held.becomes(2 * WORTH_GIVING_BACK, for_seconds=SETTLING_SECONDS / 2)
        held.becomes(0, for_seconds=SETTLING_SECONDS / 2)
    assert held.given_back() == 0


def test_the_allocator_gives_back_what_lies_between_what_is_used() -> None:
    """Bodies of one size in one heap, of which every eighth stays."""
    bodies = [b"x" * (BODY // 16) for _ in range(4096)]
    taken = psutil.Process().memory_info().rss
    kept = bodies[::8]
    del bodies
    seconds = count(step=2 * SETTLING_SECONDS)
    sizes = iter([len(kept) * 8 * BODY, *2 * [len(kept) * BODY]])
    freed = FreedMemory(lambda: next(sizes), clock=lambda: next(seconds))
    for _ in range(3):
        freed.check()
    freed._thread.shutdown(wait=True)
    assert psutil.Process().memory_info().rss < taken - 64 * BODY
