"""Who counts as one caller, and how urgent each may be."""

from __future__ import annotations

import pytest

from mass_serve.server.serving.caller import UNKNOWN, Caller, caller_at
from mass_serve.server.serving.fair_queue import ORDINARY_PRIORITY


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.7", "address:192.0.2.7"),
        ("::ffff:192.0.2.7", "address:192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "address:2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "address:2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "address:2001:db8:1:3::/64"),
        ("::1", "address:::/64"),
        ("fe80::1%eth0", "address:fe80::/64"),
        ("testclient", "address:unknown"),
        ("", "address:unknown"),
        (None, "address:unknown"),
    ],
)
def test_a_caller_without_a_key_is_its_address(host: str | None, name: str) -> None:
    assert caller_at(host) == Caller(name, None, ORDINARY_PRIORITY, 1.0)


def test_nobody_is_a_caller_too() -> None:
    assert caller_at(None) is UNKNOWN


@pytest.mark.parametrize(
    ("ceiling", "asked", "served"), [(2, 1, 2), (2, 2, 2), (2, 3, 3), (1, 1, 1), (3, 1, 3)]
)
def test_more_urgency_than_a_caller_may_have_is_not_refused_but_lowered(
    ceiling: int, asked: int, served: int
) -> None:
    caller = Caller("key:a", "a", ceiling, 2.5)
    turn = caller.turn(asked)
    assert (turn.caller, turn.priority, turn.share) == ("key:a", served, 2.5)


def test_a_request_that_says_nothing_is_ordinary() -> None:
    assert Caller("key:a", "a", 1).turn().priority == ORDINARY_PRIORITY == 2
