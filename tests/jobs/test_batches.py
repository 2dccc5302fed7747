"""Inputs are taken ahead within bounds, and put into full batches of about one length."""

from __future__ import annotations

import threading
from collections.abc import Generator

import numpy as np
import pytest

from mass_serve.inputs.texts import Tokens
from mass_serve.jobs.ahead import Ahead
from mass_serve.jobs.answering import Answered, in_order
from mass_serve.jobs.batches import BatchLimits, Ready, batches
from mass_serve.jobs.sources import JobInput, Position

LENGTHS = [3, 40, 5, 7, 40, 3, 9, 40, 1, 12, 40, 2]


def ready(number: int, length: int | None) -> Ready:
    one = JobInput(str(number), "text", Position(number))
    if length is None:
        return Ready(one, None, "broken")
    return Ready(one, Tokens(np.zeros((length, 2), np.int64), cut=0))


def lengths(limits: BatchLimits, given: list[int | None]) -> list[list[int]]:
    made = batches((ready(number, length) for number, length in enumerate(given)), limits)
    return [[one.length for one in batch] for batch in made]


def test_texts_of_about_one_length_are_in_a_batch() -> None:
    assert lengths(BatchLimits(4, 1000, sorted_batches=3), [*LENGTHS, 1]) == [
        [1, 2, 3, 3],
        [5, 7, 9, 12],
        [40, 40, 40, 40],
        [1],
    ]


def test_a_batch_has_no_more_tokens_than_it_may() -> None:
    found = lengths(BatchLimits(4, 80, sorted_batches=3), [*LENGTHS])
    assert [sum(batch) <= 80 for batch in found] == [True] * len(found)
    assert found[-2:] == [[40, 40], [40, 40]]
    assert lengths(BatchLimits(4, 10, sorted_batches=1), [50, 60]) == [[50], [60]], "one is always taken"


def test_what_cannot_be_read_fills_no_batch_and_is_not_held_back() -> None:
    made = batches((ready(number, None if number % 3 else 5) for number in range(30)), BatchLimits(4, 1000))
    found = [sum(one.prepared is not None for one in batch) for batch in made]
    assert sum(found) == 10
    assert max(found) <= 4
    broken = list(batches((ready(number, None) for number in range(20)), BatchLimits(4, 1000)))
    assert sum(map(len, broken)) == 20
    assert len(broken) > 1, "they are told of before all are read"


def test_answers_are_put_in_order() -> None:
    answered = [Answered(ready(number, 1).input) for number in range(6)]
    given = [[answered[at] for at in batch] for batch in ([2, 0], [4, 1, 3], [5])]
    assert [one.input.at.number for one in in_order(given)] == list(range(6))


def test_only_so_much_is_taken_ahead() -> None:
    taken, has_room = 0, threading.Event()

    def items() -> Generator[int, None, None]:
        nonlocal taken
        for number in range(100):
            taken = number + 1
            has_room.set() if taken == 6 else None
            yield 30

    ahead = Ahead(items(), most=50, most_bytes=150, nbytes=lambda size: size)
    assert has_room.wait(60)
    assert taken == 6, "five wait, of 150 bytes in all, and one for room"
    assert len(list(ahead)) == 100


def test_one_item_may_be_larger_than_all_may_be() -> None:
    ahead = Ahead((size for size in (1000, 1000)), most=2, most_bytes=10, nbytes=lambda size: size)
    assert list(ahead) == [1000, 1000]


def test_what_is_raised_ahead_is_raised_in_its_place() -> None:
    def items() -> Generator[int, None, None]:
        yield 1
        raise OSError("the network is gone")

    found = iter(Ahead(items(), most=5, most_bytes=100, nbytes=lambda _: 1))
    assert next(found) == 1
    with pytest.raises(OSError, match="the network is gone"):
        next(found)


def test_a_reader_that_is_closed_closes_what_it_reads() -> None:
    closed: list[str] = []

    def items() -> Generator[int, None, None]:
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread().name)

    ahead = Ahead(items(), most=5, most_bytes=100, nbytes=lambda _: 1)
    assert next(iter(ahead)) == 0
    ahead.close()
    assert closed == ["read-ahead"]
