"""Which connection goes where there are too many."""

from __future__ import annotations

import time

import pytest

from mass_serve.server.web.crowd import Crowd


def crowd_of(most: int, *names: str) -> Crowd[str]:
    """Connections that came in this order, each called by its address and a number: "a1"."""
    crowd = Crowd[str](most)
    for name in names:
        crowd.enter(name[0], name)
    return crowd


def test_nobody_goes_while_there_is_room() -> None:
    assert crowd_of(2, "a1", "a2").one_too_many() is None


def test_one_of_the_address_that_has_most_goes_though_others_wait_for_longer() -> None:
    assert crowd_of(4, "b1", "a1", "a2", "c1", "a3").one_too_many() == "a1"


def test_where_all_have_as_many_the_one_that_waits_for_longest_goes() -> None:
    crowd = crowd_of(2, "a1", "b1", "c1")
    for event in (crowd.begins, crowd.ends):
        event("a1")
    assert crowd.one_too_many() == "b1"


def test_who_is_answered_stays_while_another_of_the_address_waits() -> None:
    crowd = crowd_of(2, "a1", "b1", "a2")
    crowd.begins("a1")
    assert crowd.one_too_many() == "a2"


def test_where_all_of_the_address_are_answered_the_latest_request_goes() -> None:
    crowd = crowd_of(3, "a1", "a2", "b1", "b2", "a3")
    for connection in ("a2", "a1", "a3", "b1"):
        crowd.begins(connection)
    assert crowd.one_too_many() == "a3"
    crowd.leave("a3")
    assert crowd.one_too_many() == "b2", "of two addresses with as many the one that waits"


def test_who_has_left_counts_no_more_and_may_leave_again() -> None:
    crowd = crowd_of(2, "a1", "a2", "a3")
    crowd.begins("a1")
    for _ in range(2):
        crowd.leave("a1")
    crowd.ends("a1")
    assert crowd.one_too_many() is None
    crowd.enter("b", "b1")
    assert crowd.one_too_many() == "a2"


@pytest.mark.parametrize("addresses", [1, 2500, 10_000])
def test_a_flood_costs_little_for_each_of_its_connections(addresses: int) -> None:
    """A look at each of ten thousand connections took 4 ms, and with it all others' time."""
    most, flood = 10_000, 1000
    crowd = Crowd[int](most)
    for number in range(most):
        crowd.enter(f"{number % addresses}", number)
        if number % 2:
            crowd.begins(number)
    started = time.process_time()
    for number in range(most, most + flood):
        crowd.enter(f"{number % addresses}", number)
        gone = crowd.one_too_many()
        assert gone is not None
        crowd.leave(gone)
    assert (time.process_time() - started) / flood < 0.002
