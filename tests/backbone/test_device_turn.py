"""One thread has the device at a time, in the order in which they asked."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch

from mass_serve.backbone.device_turn import Turns, device_turn
from tests.server_processes import wait_for


def test_turns_go_to_threads_in_the_order_in_which_they_asked() -> None:
    turns, order = Turns(), list[int]()

    def take(number: int) -> None:
        with turns.turn():
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    with turns.turn():
        for number, thread in enumerate(threads):
            thread.start()
            wait_for(partial(_has_waiting, turns, number + 1))
        # Who has the turn takes it again, and none of those that wait gets it in between.
        with turns.turn():
            pass
        assert order == []
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3]


def _has_waiting(turns: Turns, threads: int) -> bool:
    return len(turns._waiting) == threads


def test_an_error_gives_the_turn_back() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.turn():
        raise ZeroDivisionError
    taken = threading.Event()

    def take() -> None:
        with turns.turn():
            taken.set()

    threading.Thread(target=take).start()
    assert taken.wait(10)


def test_a_cpu_is_everybodys() -> None:
    both = threading.Barrier(2, timeout=10)

    def meet() -> None:
        with device_turn(torch.device("cpu")):
            both.wait()

    other = threading.Thread(target=meet)
    other.start()
    meet()  # raises where the other cannot come in
    other.join(10)
    assert not other.is_alive()
    assert not both.broken
