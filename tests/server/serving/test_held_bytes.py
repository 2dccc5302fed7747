"""The memory of bodies is bounded, and whoever holds much leaves some for those who need little."""

from __future__ import annotations

import threading

import pytest

from mass_serve.server.errors import ClientGoneError, MemoryFullError, TooLargeError
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.held_bytes import HeldBytes
from mass_serve.server.serving.request_context import RequestContext

BOUND, LITTLE = 800, 100


@pytest.fixture
def held() -> HeldBytes:
    return HeldBytes(BOUND, largest_body=200)


def request(caller: str) -> RequestContext:
    return RequestContext("r", Caller(caller))


def holding(held: HeldBytes, caller: str, nbytes: int) -> RequestContext:
    made = request(caller)
    held.hold(nbytes, made)
    return made


def test_parts_add_up_and_are_given_back_together(held: HeldBytes) -> None:
    one = holding(held, "a", 30)
    held.hold(20, one)
    other = holding(held, "b", 7)
    assert (held.total, one.held_bytes, other.held_bytes) == (57, 50, 7)
    held.release(one)
    assert (held.total, one.held_bytes) == (7, 0)
    held.release(other)
    assert held.total == 0


def test_what_is_refused_is_not_counted(held: HeldBytes) -> None:
    holding(held, "a", 350)
    holding(held, "a", 350)
    late = request("a")
    with pytest.raises(MemoryFullError, match="try again"):
        held.hold(1, late)
    assert (held.total, late.held_bytes) == (700, 0)


def test_one_caller_may_have_all_but_what_is_kept_for_those_who_need_little(held: HeldBytes) -> None:
    holding(held, "a", 350)
    mine = holding(held, "a", 350)
    holding(held, "b", LITTLE)
    with pytest.raises(MemoryFullError):
        holding(held, "c", 1)
    assert held.total == BOUND
    held.release(mine)
    holding(held, "c", 350 - LITTLE)


def test_who_holds_more_than_little_is_bounded_as_the_others_are(held: HeldBytes) -> None:
    holding(held, "a", 650)
    holding(held, "b", LITTLE)
    with pytest.raises(MemoryFullError):
        holding(held, "b", 1)
    holding(held, "c", 50)
    assert held.total == BOUND


def test_little_is_counted_by_caller_and_not_by_request(held: HeldBytes) -> None:
    holding(held, "a", 650)
    for _ in range(10):
        holding(held, "b", 10)
    with pytest.raises(MemoryFullError):
        holding(held, "b", 10)


def test_what_a_caller_gave_back_counts_no_more(held: HeldBytes) -> None:
    holding(held, "a", 650)
    for _ in range(20):
        held.release(holding(held, "b", LITTLE))
    assert held._by_caller.keys() == {"a"}, "who holds nothing is not kept"


def test_bytes_are_given_back_by_who_took_them_though_the_caller_became_known_later(held: HeldBytes) -> None:
    one = holding(held, "address:192.0.2.1", 60)
    one.caller = Caller("key:team-a")
    held.hold(40, one)
    held.release(one)
    assert (held.total, held._by_caller) == (0, {})


def test_who_was_refused_all_is_not_kept(held: HeldBytes) -> None:
    holding(held, "a", 700)
    late = request("b")
    with pytest.raises(MemoryFullError):
        held.hold(LITTLE + 1, late)
    assert held._by_caller.keys() == {"a"}
    held.release(late)
    assert held._by_caller.keys() == {"a"}


def test_what_never_fits_is_refused_for_good(held: HeldBytes) -> None:
    body = holding(held, "a", 200)
    with pytest.raises(TooLargeError, match="700 bytes"):
        held.hold(501, body)
    held.hold(500, body)


def test_the_largest_body_fits_whatever_the_settings_are() -> None:
    held = HeldBytes(BOUND, largest_body=BOUND)
    held.release(holding(held, "a", BOUND))
    with pytest.raises(TooLargeError):
        holding(held, "a", BOUND + 1)


def test_a_request_that_is_over_holds_nothing_more(held: HeldBytes) -> None:
    """A thread that still unpacks its body ends with that."""
    gone = holding(held, "a", 10)
    held.release(gone)
    with pytest.raises(ClientGoneError):
        held.hold(1, gone)
    held.release(gone)
    assert held.total == 0


def test_many_threads_lose_no_byte() -> None:
    held = HeldBytes(1 << 40, largest_body=1)

    def work() -> None:
        for _ in range(2000):
            one = holding(held, "a", 3)
            held.hold(4, one)
            held.release(one)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held.total == 0
